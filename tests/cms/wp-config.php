<?php
// The blog of a test: what stands between @ is the test's, and so are further lines.
define( 'DB_NAME', 'blog' );
define( 'DB_USER', 'root' );
define( 'DB_PASSWORD', '' );
define( 'DB_HOST', 'localhost:@SOCKET@' );
define( 'DB_CHARSET', 'utf8mb4' );
define( 'DB_COLLATE', '' );
define( 'WP_HOME', 'http://@HOST@' );
define( 'WP_SITEURL', 'http://@HOST@' );
define( 'DISABLE_WP_CRON', true );
define( 'AUTOMATIC_UPDATER_DISABLED', true );
define( 'WP_HTTP_BLOCK_EXTERNAL', true );
// The nodes have addresses of their own in 127.0.0.0/8.
define( 'WP_ACCESSIBLE_HOSTS', '@HOST@,127.*' );
foreach ( array( 'AUTH', 'SECURE_AUTH', 'LOGGED_IN', 'NONCE' ) as $name ) {
	define( "{$name}_KEY", "the key $name of a test" );
	define( "{$name}_SALT", "the salt $name of a test" );
}
// SETTINGS
$table_prefix = 'wp_';
if ( ! defined( 'ABSPATH' ) ) {
	define( 'ABSPATH', __DIR__ . '/' );
}
require_once ABSPATH . 'wp-settings.php';

<?php
// What a test has WordPress do, in its own words: wordpress.php ROOT WHAT [ARGUMENT...]
//
//   install ADMIN PASSWORD    makes the blog, with addresses that say the year and the title
//   activate PLUGIN           as its administrator does
//   option NAME JSON          adds to an option of the site that is an array
//   theme NAME                switches the theme
//   w3tc SERVER               has W3 Total Cache purge a Varnish there, as its page of settings does
list( , $root, $what ) = $argv;
$arguments = array_slice( $argv, 3 );
if ( 'install' === $what ) {
	define( 'WP_INSTALLING', true );
}
require "$root/wp-load.php";
require_once ABSPATH . 'wp-admin/includes/upgrade.php';
require_once ABSPATH . 'wp-admin/includes/plugin.php';

switch ( $what ) {
	case 'install':
		add_filter( 'pre_wp_mail', '__return_true' );
		wp_install( 'Blog', $arguments[0], 'admin@blog.test', true, '', $arguments[1] );
		update_option( 'permalink_structure', '/%year%/%postname%/' );
		break;
	case 'activate':
		$failed = activate_plugin( $arguments[0] );
		if ( is_wp_error( $failed ) ) {
			fwrite( STDERR, $failed->get_error_message() );
			exit( 1 );
		}
		flush_rewrite_rules();
		break;
	case 'option':
		$known = (array) get_site_option( $arguments[0], array() );
		update_site_option( $arguments[0], array_merge( $known, json_decode( $arguments[1], true ) ) );
		break;
	case 'theme':
		switch_theme( $arguments[0] );
		break;
	case 'w3tc':
		$settings = \W3TC\Dispatcher::config();
		$settings->set( 'varnish.enabled', true );
		$settings->set( 'varnish.servers', array( $arguments[0] ) );
		$settings->save();
		break;
	default:
		fwrite( STDERR, "no such act: $what" );
		exit( 2 );
}

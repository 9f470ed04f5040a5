//! WordPress from Debian, with a MariaDB of its own. Its plugins are those of a folder that
//! `LAMINA_WORDPRESS_PLUGINS` names, as their authors ship them: they are in no package registry.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::cli::repository;
use crate::php::{self, PhpProgram};
use crate::process::Server;
use crate::wait::{SOON, wait_for};

/// Where Debian puts it.
const ROOT: &str = "/usr/share/wordpress";

/// The public name of the blog.
pub const HOST: &str = "blog.test";

/// Whom it was installed for.
pub const ADMIN: &str = "admin";
pub const PASSWORD: &str = "correct horse battery";

/// A blog that is served.
pub struct WordPress {
    program: PhpProgram,
    pub server: Server,
    database: MariaDb,
    _dir: TempDir,
}

/// A database server that listens on a Unix socket alone.
struct MariaDb {
    process: Child,
    socket: PathBuf,
    _dir: TempDir,
}

/// Where this plugin is, if it is and WordPress and MariaDB are, too.
pub fn plugin(name: &str) -> Option<PathBuf> {
    let what = format!("WordPress with {name}");
    let folder = std::env::var("LAMINA_WORDPRESS_PLUGINS").unwrap_or_default();
    let plugin = PathBuf::from(folder).join(name);
    if !plugin.is_dir() {
        eprintln!("skipped: {what}, since LAMINA_WORDPRESS_PLUGINS names no folder with it");
        return None;
    }
    let files = [format!("{ROOT}/index.php"), "/usr/sbin/mariadbd".to_owned()];
    let here = files.iter().all(|file| php::is_here(file, &what));
    here.then_some(plugin)
}

impl WordPress {
    /// Serves its files. There is no blog before it is [installed](Self::install).
    pub async fn start() -> Self {
        let database = MariaDb::start().await;
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("blog");
        // Without links, since it finds its settings beside its own files.
        let copied = Command::new("cp")
            .args(["-rL", ROOT])
            .arg(&root)
            .status()
            .unwrap();
        assert!(copied.success());
        fs::remove_file(root.join("wp-config.php")).unwrap();
        fs::create_dir(root.join("wp-content/mu-plugins")).unwrap();
        fs::create_dir(root.join("wp-content/uploads")).unwrap();
        let program = PhpProgram {
            root: root.to_str().unwrap().to_owned(),
            // It asks itself.
            environment: vec!["PHP_CLI_SERVER_WORKERS=4".to_owned()],
        };
        Self {
            server: program.serve(),
            program,
            database,
            _dir: dir,
        }
    }

    /// Makes the blog, which reaches its public name at `edge`, with this plugin. `settings` are further
    /// lines of `wp-config.php`.
    pub fn install(&self, edge: &str, plugin: &Path, settings: &str) {
        let root = PathBuf::from(&self.program.root);
        let template = repository().join("tests/cms/wp-config.php");
        let config = fs::read_to_string(template)
            .unwrap()
            .replace("@SOCKET@", self.database.socket.to_str().unwrap())
            .replace("@HOST@", HOST)
            .replace("// SETTINGS", settings);
        fs::write(root.join("wp-config.php"), config).unwrap();
        let resolve = format!(
            "<?php\n// Stands for a line of /etc/hosts, and for port 80.\nadd_action( 'http_api_curl', \
             function ( $handle ) {{ curl_setopt( $handle, CURLOPT_CONNECT_TO, [ '{HOST}:80:{edge}' ] ); \
             }} );\n"
        );
        fs::write(root.join("wp-content/mu-plugins/resolve.php"), resolve).unwrap();
        let name = plugin.file_name().unwrap().to_str().unwrap();
        let copied = Command::new("cp")
            .arg("-rL")
            .arg(plugin)
            .arg(root.join("wp-content/plugins"))
            .status()
            .unwrap();
        assert!(copied.success());
        self.drive(&["install", ADMIN, PASSWORD]);
        self.drive(&["activate", &format!("{name}/{name}.php")]);
    }

    /// Has `tests/cms/wordpress.php` do something in the blog.
    pub fn drive(&self, arguments: &[&str]) -> String {
        let script = repository().join("tests/cms/wordpress.php");
        let mut all = vec![self.program.root.as_str()];
        all.extend(arguments);
        self.program.run(script.to_str().unwrap(), &all, "")
    }
}

impl MariaDb {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (data, socket) = (dir.path().join("data"), dir.path().join("socket"));
        let data = format!("--datadir={}", data.to_str().unwrap());
        let made = Command::new("mariadb-install-db")
            .args(["--no-defaults", "--auth-root-authentication-method=normal"])
            .args(["--skip-test-db", "--user=root", data.as_str()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .expect("MariaDB is installed (make test-cms)");
        assert!(made.success(), "mariadb-install-db: {made}");
        let process = Command::new("/usr/sbin/mariadbd")
            .args(["--no-defaults", "--user=root", "--skip-networking"])
            .arg("--innodb-flush-log-at-trx-commit=0")
            .arg(format!("--socket={}", socket.to_str().unwrap()))
            .arg(&data)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("mariadbd starts");
        let database = Self {
            process,
            socket,
            _dir: dir,
        };
        wait_for("MariaDB has the database `blog`", SOON, || async {
            database.make("blog").then_some(())
        })
        .await;
        database
    }

    fn make(&self, name: &str) -> bool {
        let ran = Command::new("mariadb")
            .args(["--no-defaults", "--user=root", "-e"])
            .arg(format!("CREATE DATABASE IF NOT EXISTS {name}"))
            .arg(format!("--socket={}", self.socket.to_str().unwrap()))
            .stderr(Stdio::null())
            .status();
        ran.is_ok_and(|ran| ran.success())
    }
}

impl Drop for MariaDb {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

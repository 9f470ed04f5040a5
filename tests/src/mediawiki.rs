//! MediaWiki from Debian, with SQLite in a folder of its own.

use std::fs::OpenOptions;
use std::io::Write as _;

use tempfile::TempDir;

use crate::php::{self, PhpProgram};
use crate::process::Server;

/// Where Debian puts it.
const ROOT: &str = "/usr/share/mediawiki";

/// The public name of the wiki.
pub const HOST: &str = "wiki.test";

/// Whom it was installed for.
pub const ADMIN: &str = "Admin";
pub const PASSWORD: &str = "correct horse battery";

/// What suits tests, and nothing about caches.
const SETTINGS: &str = "$wgArticlePath = '/wiki/$1';\n$wgJobRunRate = 0;\n$wgRateLimits = [];\n";

/// A wiki that is served.
pub struct MediaWiki {
    program: PhpProgram,
    dir: TempDir,
    pub server: Server,
}

/// Whether it is here.
pub fn is_here() -> bool {
    php::is_here(&format!("{ROOT}/index.php"), "MediaWiki behind two nodes")
}

impl MediaWiki {
    /// Installs a wiki and serves it.
    pub fn install() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().to_str().unwrap();
        let mut program = PhpProgram {
            root: ROOT.to_owned(),
            environment: Vec::new(),
        };
        let server = format!("http://{HOST}");
        let arguments = [
            "--confpath",
            folder,
            "--dbtype",
            "sqlite",
            "--dbpath",
            folder,
            "--server",
            server.as_str(),
            "--scriptpath",
            "",
            "--skins",
            "Vector",
            "--pass",
            PASSWORD,
            "Wiki",
            ADMIN,
        ];
        program.run("maintenance/install.php", &arguments, "");
        program.environment = vec![format!("MW_CONFIG_FILE={folder}/LocalSettings.php")];
        let server = program.serve();
        let wiki = Self {
            program,
            dir,
            server,
        };
        wiki.configure(SETTINGS);
        wiki
    }

    /// Adds lines to `LocalSettings.php`.
    pub fn configure(&self, lines: &str) {
        let path = self.dir.path().join("LocalSettings.php");
        let mut file = OpenOptions::new().append(true).open(path).unwrap();
        file.write_all(lines.as_bytes()).unwrap();
    }

    /// Writes a page, as its administrator does on the command line.
    pub fn edit(&self, title: &str, text: &str) {
        let arguments = ["--user", ADMIN, "--no-rc", title];
        self.program.run("maintenance/edit.php", &arguments, text);
    }

    /// Does what waits to be done, such as purges of pages that use a template.
    pub fn run_jobs(&self) {
        self.program.run("maintenance/runJobs.php", &[], "");
    }
}

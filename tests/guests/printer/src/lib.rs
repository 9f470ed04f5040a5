//! A key plugin for WASI, as the runtimes of some languages need it: it prints what it
//! finds there, and on one path sleeps.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, SystemTime};

use lamina_plugin::{CacheKey, KeyDecision, KeyInputs, KeyNeeds, KeyPlugin, Manifest};

struct Printer;

impl KeyPlugin for Printer {
    fn new(_: &str) -> Result<Self, String> {
        Ok(Self)
    }

    fn manifest(&self) -> Manifest {
        Manifest::new("printer", "1").needs(KeyNeeds::url())
    }

    fn key(&self, inputs: &KeyInputs) -> KeyDecision {
        let url = inputs.url();
        if url.ends_with("/sleep") {
            std::thread::sleep(Duration::from_secs(3_600));
        }
        println!(
            "variables {} arguments {}",
            std::env::vars().count(),
            std::env::args().count()
        );
        println!(
            "file {}",
            fs::read("/etc/passwd").is_ok() || fs::read_dir(".").is_ok()
        );
        let socket =
            TcpStream::connect("127.0.0.1:80").is_ok() || TcpListener::bind("127.0.0.1:0").is_ok();
        println!("socket {socket}");
        println!("clock {}", SystemTime::now() > SystemTime::UNIX_EPOCH);
        eprintln!("two\rlines\x1b[31m in one");
        CacheKey::new(url).into()
    }
}

lamina_plugin::export_key!(Printer);

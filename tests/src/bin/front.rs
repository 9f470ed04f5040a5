//! `front NAME FOLDER GATEWAY`: lets a client that speaks HTTP/1 in clear text reach a gateway over
//! a front, for suites that are not ours.
//!
//! It makes certificates in the folder (`server.crt` with `server.key` for 127.0.0.1, and the
//! authority `ca.crt`), with which the gateway is to be started at the address GATEWAY, prints the
//! address that clients ask, and serves until its standard input ends.

use std::path::Path;

use anyhow::{Context, bail};
use e2e::front::{self, Front};
use e2e::h3::NAME;
use e2e::h3::certificates::Certificates;

/// How it is called.
const USAGE: &str = "front NAME FOLDER GATEWAY";

fn main() -> anyhow::Result<()> {
    if e2e::cli::helped(USAGE) {
        return Ok(());
    }
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, folder, gateway] = &arguments[..] else {
        bail!("{USAGE}");
    };
    let front = Front::parse(name).map_err(anyhow::Error::msg)?;
    let gateway = gateway.parse().context("GATEWAY is an address")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let folder = Path::new(folder);
    let certificates = Certificates::new(&[NAME, "127.0.0.1"]);
    for (file, content) in certificates.files() {
        std::fs::write(folder.join(file), content).context(file)?;
    }
    let door = runtime.block_on(front::messages(front, gateway, &certificates));
    println!("{}", door.address);
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink())?;
    Ok(())
}

//! What to run.

use std::path::PathBuf;

use anyhow::{Context, bail};

use crate::fault::Fault;
use crate::peers::{Peer, PeerTuning};
use crate::report::Subject;

/// How it is called.
pub const USAGE: &str = "bench_faults [--rounds N] [--only NAME,NAME] [--faults NAME,NAME] [--peers FOLDER]\n\
     names: lamina, alone (Lamina without others), haproxy, envoy, traefik, caddy, nginx, and haproxy-tuned and so on\n\
     faults: refused, hangs, black-hole, fast-500, slow, post-reset\n\
     LAMINA_BIN: another program than the `lamina` beside this one";

/// The command line.
pub struct Options {
    /// How often each cell is measured.
    pub rounds: usize,
    /// Names of rows; empty means all.
    only: Vec<String>,
    pub faults: Vec<Fault>,
    /// The virtual environment with the peers.
    pub peers: PathBuf,
}

impl Options {
    pub fn from_arguments() -> anyhow::Result<Self> {
        let mut options = Self {
            rounds: 1,
            only: Vec::new(),
            faults: Fault::ALL.to_vec(),
            peers: e2e::cli::repository().join("target/peers"),
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let value = arguments.next();
            let value = value.with_context(|| format!("{name} needs a value"))?;
            match name.as_str() {
                "--rounds" => options.rounds = value.parse().context("--rounds takes a number")?,
                "--only" => options.only = value.split(',').map(str::to_owned).collect(),
                "--faults" => {
                    options.faults = value.split(',').map(fault).collect::<anyhow::Result<_>>()?;
                }
                "--peers" => options.peers = value.into(),
                _ => bail!("{name} is unknown; {USAGE}"),
            }
        }
        Ok(options)
    }

    /// The rows of the table.
    pub fn subjects(&self) -> Vec<Subject> {
        let tunings = [PeerTuning::Default, PeerTuning::Tuned].into_iter();
        let peers = tunings.flat_map(|tuning| Peer::ALL.map(|peer| Subject::Peer(peer, tuning)));
        let all = std::iter::once(Subject::Lamina).chain(peers);
        all.filter(|subject| self.wants(&subject.name())).collect()
    }

    pub fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }
}

fn fault(word: &str) -> anyhow::Result<Fault> {
    let known = Fault::ALL.into_iter().find(|fault| fault.word() == word);
    known.with_context(|| format!("{word} is no fault; {USAGE}"))
}

//! What to run.

use std::path::PathBuf;

use anyhow::{Context, bail};

use crate::fault::TargetFault;
use crate::names;
use crate::peers::{Peer, PeerTuning};
use crate::report::MeasuredProxy;

/// How it is called.
pub const USAGE: &str = "bench_faults [--rounds N] [--only ROW,ROW] [--faults FAULT,FAULT] [--peers FOLDER]\n\
     rows: lamina, haproxy, envoy, traefik, caddy, nginx, haproxy-tuned and so on; and alone, the trials of Lamina without others\n\
     faults: refused, hangs, black-hole, fast-500, slow, post-reset (of one target of three);\n\
     names (a name that changes: a table of its own, without traefik and tuned rows)\n\
     with names the row alone has the trials of name servers, with any other fault all others\n\
     LAMINA_BIN: another program than the `lamina` beside this one";

/// The command line.
pub struct FaultBenchOptions {
    /// How often each cell is measured.
    pub rounds: usize,
    /// Names of rows; empty means all.
    only: Vec<String>,
    /// Columns of the table of faults.
    pub faults: Vec<TargetFault>,
    pub names: NamesWanted,
    /// The virtual environment with the peers.
    pub peers: PathBuf,
}

/// Whether there is a table of names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NamesWanted {
    Yes,
    No,
}

impl Default for FaultBenchOptions {
    fn default() -> Self {
        Self {
            rounds: 1,
            only: Vec::new(),
            faults: TargetFault::ALL.to_vec(),
            names: NamesWanted::Yes,
            peers: e2e::cli::repository().join("target/peers"),
        }
    }
}

impl FaultBenchOptions {
    pub fn from_arguments() -> anyhow::Result<Self> {
        let mut options = Self::default();
        let mut arguments = std::env::args().skip(1);
        while let Some(name) = arguments.next() {
            let value = arguments.next();
            let value = value.with_context(|| format!("{name} needs a value"))?;
            match name.as_str() {
                "--rounds" => options.rounds = value.parse().context("--rounds takes a number")?,
                "--only" => options.only = value.split(',').map(str::to_owned).collect(),
                "--faults" => options.choose(&value)?,
                "--peers" => options.peers = value.into(),
                _ => bail!("{name} is unknown; {USAGE}"),
            }
        }
        Ok(options)
    }

    /// The rows of the table.
    pub fn subjects(&self) -> Vec<MeasuredProxy> {
        let tunings = [PeerTuning::Default, PeerTuning::Tuned].into_iter();
        let peers =
            tunings.flat_map(|tuning| Peer::ALL.map(|peer| MeasuredProxy::Peer(peer, tuning)));
        let all = std::iter::once(MeasuredProxy::Lamina).chain(peers);
        all.filter(|subject| self.wants(&subject.name())).collect()
    }

    /// The rows of the table of names: each proxy that follows names once.
    pub fn named_subjects(&self) -> Vec<MeasuredProxy> {
        let peers = Peer::ALL.map(|peer| MeasuredProxy::Peer(peer, PeerTuning::Default));
        let all = std::iter::once(MeasuredProxy::Lamina).chain(peers);
        let named = all.filter(|subject| names::follows_names(*subject));
        named
            .filter(|subject| self.wants(&subject.name()))
            .collect()
    }

    /// Takes these words, and nothing else, for what is to be measured.
    fn choose(&mut self, words: &str) -> anyhow::Result<()> {
        self.faults.clear();
        self.names = NamesWanted::No;
        for word in words.split(',') {
            match word == names::WORD {
                true => self.names = NamesWanted::Yes,
                false => self.faults.push(fault(word)?),
            }
        }
        Ok(())
    }

    pub fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == name)
    }
}

fn fault(word: &str) -> anyhow::Result<TargetFault> {
    let known = TargetFault::ALL
        .into_iter()
        .find(|fault| fault.word() == word);
    known.with_context(|| format!("{word} is no fault; {USAGE}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(words: &str) -> (Vec<TargetFault>, NamesWanted) {
        let mut options = FaultBenchOptions::default();
        options.choose(words).expect("known words");
        (options.faults, options.names)
    }

    #[test]
    fn names_are_chosen_like_faults() {
        let all = FaultBenchOptions::default();
        assert_eq!((all.faults.len(), all.names), (6, NamesWanted::Yes));
        assert_eq!(chosen("names"), (Vec::new(), NamesWanted::Yes));
        assert_eq!(chosen("hangs"), (vec![TargetFault::Hangs], NamesWanted::No));
        assert_eq!(
            chosen("names,slow"),
            (vec![TargetFault::Slow], NamesWanted::Yes)
        );
        assert!(FaultBenchOptions::default().choose("hang").is_err());
    }

    #[test]
    fn rows_of_names_are_those_who_follow_them() {
        let mut options = FaultBenchOptions::default();
        let rows = |options: &FaultBenchOptions| {
            options
                .named_subjects()
                .iter()
                .map(|one| one.name())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            rows(&options),
            ["lamina", "haproxy", "envoy", "caddy", "nginx"]
        );
        options.only = ["lamina", "nginx-tuned", "traefik"]
            .map(str::to_owned)
            .to_vec();
        assert_eq!(rows(&options), ["lamina"]);
    }
}

//! What every program of targets has: how inputs are read, and how a target is chosen.
//!
//! A target is a function over bytes that asserts laws; its inputs are text wherever the gateway's
//! are ([`input`]), so that seeds and findings can be read. `run.sh` names it in `LAMINA_FUZZ`.

pub mod input;

/// The laws of one subject over one input.
pub type Law = fn(&[u8]);

/// A target: its name, which is that of its corpus, and its laws.
pub type Target = (&'static str, &'static [Law]);

/// The laws of the target that `LAMINA_FUZZ` names.
///
/// # Panics
/// When none of the targets has that name.
pub fn chosen(targets: &[Target]) -> &'static [Law] {
    let wanted = std::env::var("LAMINA_FUZZ").unwrap_or_default();
    match targets.iter().find(|(name, _)| *name == wanted) {
        Some((_, laws)) => laws,
        None => {
            let names: Vec<_> = targets.iter().map(|(name, _)| name).collect();
            panic!("LAMINA_FUZZ={wanted:?} is no target of this program; there are {names:?}")
        }
    }
}

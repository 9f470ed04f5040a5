//! `make bench-micro`: what the parts cost within the process, without sockets.
//!
//! [`timed`] measures what is called millions of times (criterion, the median); [`once`] what needs
//! a state of its own: a million entries, a herd, the memory of an object. [`entries`] makes
//! entries as the proxy stores them; [`report`] prints one table in Markdown with the goals beside
//! the figures. Decision: memory is measured first, while the process has not yet freed memory that
//! would hide what entries need.

mod entries;
mod once;
mod plugins;
mod report;
mod timed;

/// The allocator of the program: without it, the measured times and memory would differ from those
/// of the program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    // `cargo test --benches` starts this program, too, and needs no measurement.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let mut rows = vec![once::memory()?];
    rows.extend(timed::all()?);
    rows.push(once::loader_cpu()?);
    rows.extend(once::purge_by_tag()?);
    rows.extend(once::purge_by_prefix()?);
    rows.extend(once::herds()?);
    println!("{}", report::table(&rows));
    Ok(())
}

//! `make bench-micro`: what the parts cost in process, without sockets.
//!
//! [`timed`] has what is called millions of times (criterion, the median), [`once`]
//! what needs a state of its own: a million entries, a herd, the memory of an object.
//! [`entries`] makes entries as the proxy stores them; [`report`] prints one table
//! in Markdown with the goals beside the figures. Decision: memory comes first, while
//! the process has freed nothing yet that would hide what entries take.

mod entries;
mod once;
mod plugins;
mod report;
mod timed;

/// The allocator of the program: without it neither times nor memory would be its own.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    // `cargo test --benches` starts this too, and wants no measurement.
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

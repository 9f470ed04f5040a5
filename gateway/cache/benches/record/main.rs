//! `make bench-record`: encodes the listing of 1,500 players as a record and compares that, in one
//! run, with Node.js doing what the seed does with the listing.
//!
//! The gateway's encoder and the control take turns, round by round, because other work on the
//! machine can only make a measurement slower; the median and the minimum of each are reported. The
//! gateway's measurement is the whole of `encode`: msgpack, seal, compression. The control's is
//! msgpack of the object and gzip of that; it has no seal, and its object needs no parsing. A
//! second measurement of the control, gzip of the JSON text alone, compares the compressors.

mod listing;
#[path = "../../../edge/benches/micro/report.rs"]
#[allow(dead_code, reason = "of the report only its times are used here")]
mod report;

use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use lamina_cache::l2::store::LogNumber;
use lamina_cache::record::{
    Compression, EnvelopeCodec, RecordLimits, RecordOptions, ResponseRecord, Seal, StoreRecord,
    decode, encode,
};

/// The allocator that the program uses.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROUNDS: usize = 7;
/// The number of calls of each in a round.
const CALLS: usize = 15;
const KEY: &[u8] = b"the listing";

/// One line of the table.
struct Line {
    what: String,
    bytes: usize,
    encode: Vec<Duration>,
    decode: Vec<Duration>,
}

fn main() -> anyhow::Result<()> {
    // `cargo test --benches` also starts this, but wants no measurement.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let record = record();
    let codecs: Vec<_> = std::iter::once(None)
        .chain((1..=9).map(|level| Some(EnvelopeCodec::Gzip { level })))
        .chain([1, 3, 6].map(|level| Some(EnvelopeCodec::Zstd { level })))
        .collect();
    let mut ours: Vec<_> = codecs.iter().map(|codec| Line::new(name(*codec))).collect();
    let mut node = [
        Line::new("Node.js: msgpackr of the object, gzip".into()),
        Line::new("Node.js: gzip of the JSON text".into()),
    ];
    for _ in 0..ROUNDS {
        for (line, codec) in ours.iter_mut().zip(&codecs) {
            line.measure(&record, *codec)?;
        }
        control(&mut node)?;
    }
    println!(
        "### A listing of 1,500 players as a record ({} bytes of JSON)\n",
        listing::BYTES
    );
    println!("| what | bytes | encode | decode |\n|---|---|---|---|");
    for line in ours.into_iter().chain(node) {
        let decode = match line.decode.is_empty() {
            true => String::new(),
            false => report::spread(line.decode),
        };
        println!(
            "| {} | {} | {} | {decode} |",
            line.what,
            line.bytes,
            report::spread(line.encode)
        );
    }
    Ok(())
}

fn name(codec: Option<EnvelopeCodec>) -> String {
    match codec {
        None => "HC1M".into(),
        Some(EnvelopeCodec::Gzip { level }) => format!("HC1G, level {level}"),
        Some(EnvelopeCodec::Zstd { level }) => format!("HC1Z, level {level}"),
    }
}

impl Line {
    fn new(what: String) -> Self {
        Self {
            what,
            bytes: 0,
            encode: Vec::new(),
            decode: Vec::new(),
        }
    }

    fn measure(
        &mut self,
        record: &StoreRecord,
        codec: Option<EnvelopeCodec>,
    ) -> anyhow::Result<()> {
        let compression = codec.map(|codec| Compression {
            codec,
            ..Compression::default()
        });
        let options = RecordOptions {
            compression,
            ..RecordOptions::default()
        };
        for _ in 0..CALLS {
            let begun = Instant::now();
            let bytes = encode(KEY, black_box(record), &options)?;
            self.encode.push(begun.elapsed());
            self.bytes = bytes.len();
            let begun = Instant::now();
            let back = decode(
                KEY,
                black_box(&bytes),
                &RecordLimits::default(),
                &Seal::public(),
            )?;
            self.decode.push(begun.elapsed());
            ensure!(back == *record, "what is read is what was written");
        }
        Ok(())
    }
}

/// Runs one round of the control.
fn control(lines: &mut [Line; 2]) -> anyhow::Result<()> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/record/control.sh");
    let arguments = [
        "bench".into(),
        listing::PLAYERS.to_string(),
        CALLS.to_string(),
    ];
    let output = Command::new(script).args(arguments).output()?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let told: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    for (line, name) in lines.iter_mut().zip(["object", "json"]) {
        let times = told[name]["ms"].as_array().context("times")?;
        let times = times.iter().filter_map(serde_json::Value::as_f64);
        line.encode
            .extend(times.map(|ms| Duration::from_secs_f64(ms / 1e3)));
        line.bytes = told[name]["bytes"].as_u64().context("bytes")? as usize;
    }
    Ok(())
}

fn record() -> StoreRecord {
    let mut headers = HeaderMap::new();
    headers.insert(
        "content-type",
        http::HeaderValue::from_static("application/json"),
    );
    StoreRecord::Entry(ResponseRecord {
        status: StatusCode::OK,
        headers,
        body: Bytes::from(listing::listing(listing::PLAYERS)),
        marks: Default::default(),
        born: LogNumber::new(1).order(),
        generation: 1,
        age: Duration::ZERO,
        life: Duration::from_secs(90),
        written: Duration::from_secs(1_800_000_000),
        uptime: None,
        lifetime: Duration::from_secs(60),
        while_revalidate: Duration::from_secs(30),
        if_error: Duration::ZERO,
        must_revalidate: false,
    })
}

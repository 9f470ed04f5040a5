//! Guests: bad ones, core modules written as text with the contract's type embedded, so
//! that the gateway takes them for plugins until they are called; and those of
//! `tests/guests`, which do what their configuration says. [`wrong`] has the bad ones of
//! plugins.md, one by one.

pub mod wrong;

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use wit_component::StringEncoding;
use wit_parser::Resolve;

use crate::cli::repository;

/// A plugin whose `manifest` answers properly and whose `derive` and `load` do `body`,
/// an instruction sequence that does not return.
pub fn bad(body: &str) -> Vec<u8> {
    plugin(body, body, "")
}

/// A plugin whose hooks do `derive` and `load`; `data` are further data segments.
///
/// The manifest (name `bad`, version `1`, `inputs` of the path alone) lies at 2048 as the
/// canonical ABI lays out `result<manifest, string>`: the tag, then name, version, the three
/// flags, `query`, `headers`, `cookies`, `declarative` (at 52), and at 96 the two lists of
/// `reads`.
pub fn plugin(derive: &str, load: &str, data: &str) -> Vec<u8> {
    importing("", derive, load, data)
}

/// The same with `imports`.
fn importing(imports: &str, derive: &str, load: &str, data: &str) -> Vec<u8> {
    let mut module = module(imports, derive, load, data);
    embed_contract(&mut module);
    module
}

/// The core module alone.
fn module(imports: &str, derive: &str, load: &str, data: &str) -> Vec<u8> {
    let strings = |n: usize| "i32 ".repeat(n);
    let text = format!(
        r#"(module
  {imports}
  (memory (export "memory") 1)
  (global $free (mut i32) (i32.const 4096))
  (data (i32.const 1024) "bad")
  (data (i32.const 1028) "1")
  (data (i32.const 2048) "\00\00\00\00" "\00\04\00\00\03\00\00\00" "\04\04\00\00\01\00\00\00" "\00\00\01\00")
  {data}
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (global.set $free (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
    (global.get $free)
    (global.set $free (i32.add (global.get $free) (local.get 3))))
  (func (export "lamina:plugin/manifest@1.0.0#describe") (param i32 i32) (result i32) (i32.const 2048))
  (func (export "lamina:plugin/key@1.0.0#derive") (param {key}) (result i32) {derive})
  (func (export "lamina:plugin/load@1.0.0#load") (param {request} i32 i32 i32 i64) (result i32) {load}))"#,
        key = strings(16),
        request = strings(12),
    );
    wat::parse_str(&text).expect("the guest's text is well formed")
}

fn embed_contract(module: &mut Vec<u8>) {
    let mut contract = Resolve::default();
    let wit = repository().join("plugin-sdk/wit");
    let (package, _) = contract
        .push_dir(&wit)
        .unwrap_or_else(|error| panic!("{}: {error:#}", wit.display()));
    let world = contract
        .select_world(&[package], Some("plugin"))
        .expect("the contract has a world `plugin`");
    wit_component::embed_component_metadata(module, &contract, world, StringEncoding::UTF8)
        .expect("the contract can be embedded");
}

/// A guest of `tests/guests`; all are built once.
pub fn built(name: &str) -> Vec<u8> {
    let with_wasi = std::fs::read(file_of(name, "wasm32-wasip2"));
    with_wasi.unwrap_or_else(|_| {
        let file = file_of(name, "wasm32-unknown-unknown");
        std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
    })
}

/// One that needs Rust's WASI target. None where this machine can't get it.
pub fn built_for_wasi(name: &str) -> Option<Vec<u8>> {
    let guest = std::fs::read(file_of(name, "wasm32-wasip2")).ok();
    if guest.is_none() {
        crate::tools::is_missing("Rust's target wasm32-wasip2", "a guest that uses WASI");
    }
    guest
}

fn file_of(name: &str, target: &str) -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    let folder = repository().join("tests/guests");
    BUILT.get_or_init(|| {
        let built = Command::new(folder.join("build.sh")).output().unwrap();
        let told = String::from_utf8_lossy(&built.stderr);
        assert!(built.status.success(), "tests/guests/build.sh: {told}");
    });
    folder.join(format!("target/{target}/release/{name}.wasm"))
}

/// A guest of `tests/guests` as the version `word`, which has three letters, in the place
/// of `one`: `bad` can't be described, `ill` fails each call.
pub fn version(name: &str, word: &str) -> Vec<u8> {
    let (one, other) = (b"version-one", format!("version-{word}"));
    assert_eq!(one.len(), other.len());
    let mut wasm = built(name);
    let at = wasm.windows(one.len()).position(|bytes| bytes == one);
    let at = at.expect("it holds its version");
    wasm[at..at + one.len()].copy_from_slice(other.as_bytes());
    wasm
}

/// Traps at once.
pub fn trapping() -> Vec<u8> {
    bad("unreachable")
}

/// Never returns.
pub fn looping() -> Vec<u8> {
    bad("(loop $again (br $again)) unreachable")
}

/// Data of a [`plugin`] whose manifest reads every header: the list of one `*`.
pub const READS_ALL: &str = r#"(data (i32.const 2144) "\48\0d\00\00\01\00\00\00")
  (data (i32.const 3400) "\50\0d\00\00\01\00\00\00*")"#;

/// Data of a [`plugin`] whose manifest reads the header `x-lang`.
pub const READS_LANG: &str = r#"(data (i32.const 2144) "\48\0d\00\00\01\00\00\00")
  (data (i32.const 3400) "\50\0d\00\00\06\00\00\00x-lang")"#;

/// Loads an empty page that is fresh for a day; `reads` is one of the data above.
pub fn page(reads: &str) -> Vec<u8> {
    // A `load-decision` at 3000: the case, at 8 the response, whose ttl-ms is at 24.
    let load = "(i32.store16 (i32.const 3008) (i32.const 200))
        (i32.store8 (i32.const 3032) (i32.const 1))
        (i64.store (i32.const 3040) (i64.const 86400000))
        (i32.const 3000)";
    plugin("unreachable", load, reads)
}

/// Derives from the same inputs another key each time: `1`, `2` and so on.
pub fn counting() -> Vec<u8> {
    // A `key-decision` at 3000: the case `key`, then its text, one digit at 3200.
    let derive =
        "(i32.store8 (i32.const 3200) (i32.add (i32.load8_u (i32.const 3200)) (i32.const 1)))
        (i32.const 3000)";
    let data = r#"(data (i32.const 3000) "\01\00\00\00" "\80\0c\00\00\01\00\00\00")
        (data (i32.const 3200) "0")"#;
    plugin(derive, "unreachable", data)
}

#[cfg(test)]
mod tests {
    use wit_component::ComponentEncoder;

    #[test]
    fn a_bad_guest_is_a_proper_component() {
        let encoder = ComponentEncoder::default()
            .module(&super::trapping())
            .unwrap();
        let component = encoder.validate(true).encode().unwrap();
        assert!(component.starts_with(b"\0asm"));
    }
}

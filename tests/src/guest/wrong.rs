//! The bad guests of plugins.md, written as text. What each does wrong is its name; what
//! the gateway must make of it is said by the suites `plugin_bad*`.
//!
//! A `key-decision` lies at 3000 (the case, then at 3004 the text), a `load-decision` there
//! as well (the case, then at 3008 the response: status, headers at 3012, body at 3020,
//! ttl-ms at 3032), the answer to a fetch at 3600.

use super::{embed_contract, importing, module, plugin};

/// What costs time, stack, memory or tables without end, as key and as loader.
pub mod endless {
    use super::both;

    pub fn looping() -> Vec<u8> {
        both("(loop $again (br $again)) unreachable", "")
    }

    pub fn recursion() -> Vec<u8> {
        let deeper = "(func $deeper (result i32) (i32.add (call $deeper) (i32.const 1)))";
        both("(call $deeper)", deeper)
    }

    pub fn memory() -> Vec<u8> {
        let more = "(loop $again (drop (memory.grow (i32.const 16))) (br $again)) unreachable";
        both(more, "")
    }

    pub fn table() -> Vec<u8> {
        let more = "(loop $again (drop (table.grow $t (ref.null func) (i32.const 10000))) (br $again)) unreachable";
        both(more, "(table $t 1 funcref)")
    }
}

fn both(body: &str, data: &str) -> Vec<u8> {
    plugin(body, body, data)
}

const LOG: &str = r#"(import "lamina:plugin/log@1.0.0" "write" (func $log (param i32 i32 i32)))"#;
const FETCH: &str = r#"(import "lamina:plugin/fetch@1.0.0" "fetch"
    (func $fetch (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))"#;
const FETCH_ALL: &str = r#"(import "lamina:plugin/fetch@1.0.0" "fetch-all"
    (func $fetch-all (param i32 i32 i32)))"#;
const KV: &str = r#"(import "lamina:plugin/kv@1.0.0" "get" (func $get (param i32 i32 i32)))"#;
const CLOCK: &str = r#"(import "lamina:plugin/clock@1.0.0" "now-ms" (func $now (result i64)))"#;

/// Files that are small, and cost whoever compiles them more than they may.
pub mod costly {
    /// A component in a component, and so on.
    pub fn nested() -> Vec<u8> {
        let depth = 10_000;
        let mut component = component();
        for _ in 0..depth {
            let inner = component;
            component = self::component();
            component.push(4);
            component.extend(length(inner.len()));
            component.extend(inner);
        }
        component
    }

    /// Types of components in one another, more than any stack has room for.
    pub fn nested_types() -> Vec<u8> {
        let mut ty = vec![0x40];
        for _ in 0..1_000_000 {
            // `component`, one declaration, a type: from the inside out, and backwards.
            ty.extend([1, 1, 0x41]);
        }
        ty.reverse();
        let mut component = component();
        component.push(7);
        component.extend(length(ty.len() + 1));
        component.push(1);
        component.extend(ty);
        component
    }

    /// One function of a quarter of a million branches: minutes.
    pub fn branches() -> Vec<u8> {
        let branch = [0x20, 0, 0x0d, 0];
        let mut body = vec![0, 0x02, 0x40];
        body.extend(branch.repeat(250_000));
        body.extend([0x0b, 0x0b]);
        let mut code = vec![1];
        code.extend(length(body.len()));
        code.extend(body);
        let mut module = b"\0asm\x01\0\0\0\x01\x05\x01\x60\x01\x7f\0\x03\x02\x01\0\x0a".to_vec();
        module.extend(length(code.len()));
        module.extend(code);
        let mut component = component();
        component.push(1);
        component.extend(length(module.len()));
        component.extend(module);
        component
    }

    fn component() -> Vec<u8> {
        b"\0asm\x0d\0\x01\0".to_vec()
    }

    /// LEB128.
    fn length(mut n: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while n >= 0x80 {
            bytes.push((n & 0x7f) as u8 | 0x80);
            n >>= 7;
        }
        bytes.push(n as u8);
        bytes
    }
}

/// Calls hosts without end: the key its log, the loader all that it has, a fetch of what is
/// not granted among it.
pub fn storm() -> Vec<u8> {
    let imports = [LOG, FETCH, KV, CLOCK].concat();
    let log = "(call $log (i32.const 2) (i32.const 1024) (i32.const 3))";
    let derive = format!("(loop $again {log} (br $again)) unreachable");
    let load = format!(
        "(loop $again {log} (drop (call $now)) (call $get (i32.const 1024) (i32.const 3) (i32.const 3600))
           (call $fetch (i32.const 1024) (i32.const 3) {} (i32.const 3600)) (br $again)) unreachable",
        "(i32.const 0)".repeat(10)
    );
    importing(&imports, &derive, &load, "")
}

/// Asks the upstream `shop` for a hundred thousand pages in one call of the host.
pub fn flood() -> Vec<u8> {
    // Each request has 48 bytes: upstream and path are put in, the rest is nothing.
    let load = "(local $at i32)
        (drop (memory.grow (i32.const 200)))
        (local.set $at (i32.const 65536))
        (loop $again
          (i32.store (local.get $at) (i32.const 3700))
          (i32.store (i32.add (local.get $at) (i32.const 4)) (i32.const 4))
          (i32.store (i32.add (local.get $at) (i32.const 8)) (i32.const 3712))
          (i32.store (i32.add (local.get $at) (i32.const 12)) (i32.const 3))
          (i32.store (i32.add (local.get $at) (i32.const 16)) (i32.const 3716))
          (i32.store (i32.add (local.get $at) (i32.const 20)) (i32.const 1))
          (local.set $at (i32.add (local.get $at) (i32.const 48)))
          (br_if $again (i32.lt_u (local.get $at) (i32.const 4865536))))
        (global.set $free (local.get $at))
        (call $fetch-all (i32.const 65536) (i32.const 100000) (i32.const 3600))
        (i32.store16 (i32.const 3008) (i32.const 200))
        (i32.const 3000)";
    let data = r#"(data (i32.const 3700) "shop") (data (i32.const 3712) "GET") (data (i32.const 3716) "/")"#;
    importing(FETCH_ALL, "unreachable", load, data)
}

/// Logs 200 lines of 512 KiB, then has the route's own key.
pub fn long_lines() -> Vec<u8> {
    let derive = "(local $n i32)
        (drop (memory.grow (i32.const 16)))
        (memory.fill (i32.const 65536) (i32.const 0x4c) (i32.const 524288))
        (loop $again
          (call $log (i32.const 2) (i32.const 65536) (i32.const 524288))
          (br_if $again (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 200))))
        (i32.const 3000)";
    importing(LOG, derive, "unreachable", "")
}

/// Keys that break a rule of the contract.
pub mod key {
    use super::plugin;

    pub fn empty() -> Vec<u8> {
        text("(i32.const 3200)", "(i32.const 0)")
    }

    pub fn not_utf8() -> Vec<u8> {
        text("(i32.const 3200)", "(i32.const 2)")
    }

    pub fn of_a_megabyte() -> Vec<u8> {
        text("(i32.const 65536)", "(i32.const 1048576)")
    }

    /// Says that its text goes on behind the end of its memory.
    pub fn past_the_end() -> Vec<u8> {
        text("(i32.const 3200)", "(i32.const -1)")
    }

    /// Answers a case that the contract does not have.
    pub fn of_no_case() -> Vec<u8> {
        let derive = "(i32.store8 (i32.const 3000) (i32.const 9)) (i32.const 3000)";
        plugin(derive, "unreachable", "")
    }

    fn text(at: &str, length: &str) -> Vec<u8> {
        let derive = format!(
            "(drop (memory.grow (i32.const 32)))
            (i32.store8 (i32.const 3000) (i32.const 1))
            (i32.store (i32.const 3004) {at})
            (i32.store (i32.const 3008) {length})
            (i32.const 3000)"
        );
        plugin(
            &derive,
            "unreachable",
            r#"(data (i32.const 3200) "\ff\fe")"#,
        )
    }
}

/// Loaders whose response breaks a rule of HTTP or of the contract.
pub mod response {
    use super::plugin;

    pub fn with_status(status: u16) -> Vec<u8> {
        answering(&format!("(i32.const {status})"), "")
    }

    /// `x: a CR LF b:c`.
    pub fn with_two_lines_in_one() -> Vec<u8> {
        with_header("x", r"a\0d\0ab:c")
    }

    pub fn with_a_line_in_a_name() -> Vec<u8> {
        with_header(r"x\0d\0ay", "1")
    }

    /// Its body is `bad`, whatever it says.
    pub fn with_a_length_that_lies() -> Vec<u8> {
        with_header("content-length", "99999")
    }

    pub fn with_a_body_of(bytes: u32) -> Vec<u8> {
        answering(
            "(i32.const 200)",
            &format!("(i32.store (i32.const 3024) (i32.const {bytes}))"),
        )
    }

    fn with_header(name: &str, value: &str) -> Vec<u8> {
        let length = |text: &str| text.len() - 2 * text.matches('\\').count();
        let load = format!(
            "(i32.store16 (i32.const 3008) (i32.const 200))
            (i32.store (i32.const 3012) (i32.const 3100)) (i32.store (i32.const 3016) (i32.const 1))
            (i32.store (i32.const 3020) (i32.const 1024)) (i32.store (i32.const 3024) (i32.const 3))
            (i32.store (i32.const 3100) (i32.const 3136)) (i32.store (i32.const 3104) (i32.const {}))
            (i32.store (i32.const 3108) (i32.const 3160)) (i32.store (i32.const 3112) (i32.const {}))
            (i32.const 3000)",
            length(name),
            length(value),
        );
        let data = format!(r#"(data (i32.const 3136) "{name}") (data (i32.const 3160) "{value}")"#);
        plugin("unreachable", &load, &data)
    }

    fn answering(status: &str, more: &str) -> Vec<u8> {
        let load = format!("(i32.store16 (i32.const 3008) {status}) {more} (i32.const 3000)");
        plugin("unreachable", &load, "")
    }
}

/// Loaders that fetch what they should not. What a fetch came to is in the status:
/// that of the response, or 590 and more for the cases of `fetch-error`.
pub mod fetch {
    use super::{FETCH, importing, plugin};

    pub const DENIED: u16 = 590;
    pub const INVALID: u16 = 591;
    pub const TIMEOUT: u16 = 593;

    /// Asks an upstream of the name that the client gave as host, for the client's path: for
    /// 200 ms where it ends in `?hurry`, else for as long as the call may take.
    pub fn of_any_host() -> Vec<u8> {
        asking("(local.get 4) (local.get 5)", "(local.get 6) (local.get 7)")
    }

    /// Asks the upstream `shop` for an absolute URL.
    pub fn of_a_url() -> Vec<u8> {
        asking(
            "(i32.const 3700) (i32.const 4)",
            "(i32.const 3720) (i32.const 32)",
        )
    }

    fn asking(upstream: &str, path: &str) -> Vec<u8> {
        let load = format!(
            "(local $last i32)
            (local.set $last (i32.load8_u (i32.sub (i32.add (local.get 6) (local.get 7)) (i32.const 1))))
            (call $fetch {upstream} (i32.const 3712) (i32.const 3) {path} (i32.const 0) (i32.const 0)
              (i32.const 0) (i32.const 0) (i32.eq (local.get $last) (i32.const 0x79)) (i32.const 200) (i32.const 3600))
            (if (i32.load8_u (i32.const 3600))
              (then (i32.store16 (i32.const 3008) (i32.add (i32.const {DENIED}) (i32.load8_u (i32.const 3604)))))
              (else
                (i32.store16 (i32.const 3008) (i32.load16_u (i32.const 3604)))
                (i64.store align=4 (i32.const 3012) (i64.load align=4 (i32.const 3608)))
                (i64.store align=4 (i32.const 3020) (i64.load align=4 (i32.const 3616)))))
            (i32.const 3000)"
        );
        let data = r#"(data (i32.const 3700) "shop") (data (i32.const 3712) "GET")
            (data (i32.const 3720) "http://169.254.169.254/meta-data")"#;
        importing(FETCH, "unreachable", &load, data)
    }

    /// Hands the request on, to another host.
    pub fn pass_elsewhere() -> Vec<u8> {
        // A `request` at 3008: method, scheme, host, path, headers, body.
        let local = |n: usize| {
            let at = 3008 + 4 * n;
            format!("(i32.store (i32.const {at}) (local.get {n}))")
        };
        let kept: String = (0..12).filter(|n| !(4..6).contains(n)).map(local).collect();
        let load = format!(
            "(i32.store8 (i32.const 3000) (i32.const 1)) {kept}
            (i32.store (i32.const 3024) (i32.const 3720)) (i32.store (i32.const 3028) (i32.const 15))
            (i32.const 3000)"
        );
        plugin(
            "unreachable",
            &load,
            r#"(data (i32.const 3720) "169.254.169.254")"#,
        )
    }
}

/// Files that never become a plugin, each with the words that tell their author why.
pub fn files() -> Vec<(Vec<u8>, &'static str)> {
    let plain = |data| plugin("unreachable", "unreachable", data);
    let mut huge = b"\0asm\x01\0\0\0".to_vec();
    huge.resize(100 << 20, 0);
    let whole = super::trapping();
    vec![
        (b"#!/bin/sh".to_vec(), "not a WebAssembly file"),
        (Vec::new(), "not a WebAssembly file"),
        (huge, "at most"),
        (whole[..whole.len() / 2].to_vec(), "the code is not valid"),
        (
            plain("(func $s unreachable) (start $s)"),
            "failed while it was started: trap",
        ),
        (
            plain("(func $s (loop $again (br $again))) (start $s)"),
            "failed while it was started: deadline exceeded",
        ),
        (plain("(table 100000000 funcref)"), "table"),
        (plain("(memory 1)"), "memor"),
        (without_a_world(), "can't be made a component"),
        (of_other_types(), "can't be made a component"),
        (
            module("", "unreachable", "unreachable", ""),
            "does not export",
        ),
    ]
}

/// A module whose section `component-type` is a component as it should be, but for the world in
/// it: `wit-component` panics on it.
fn without_a_world() -> Vec<u8> {
    let ty = wat::parse_str(r#"(component (type $w (component)) (export "world" (type $w)))"#);
    let mut ty = ty.expect("the type's text is well formed");
    // How the module's texts are encoded: version 4, UTF-8.
    section(&mut ty, "wit-component-encoding", &[4, 0]);
    let mut module = module("", "unreachable", "unreachable", "");
    section(&mut module, "component-type:bad", &ty);
    module
}

/// A module of the contract's world whose `derive` is of another type.
fn of_other_types() -> Vec<u8> {
    let text = r#"(module (memory (export "memory") 1)
        (func (export "lamina:plugin/key@1.0.0#derive") (result i64) unreachable))"#;
    let mut module = wat::parse_str(text).expect("the guest's text is well formed");
    embed_contract(&mut module);
    module
}

/// Appends a custom section.
fn section(wasm: &mut Vec<u8>, name: &str, data: &[u8]) {
    let mut content = leb(name.len());
    content.extend(name.as_bytes());
    content.extend(data);
    wasm.push(0);
    wasm.extend(leb(content.len()));
    wasm.extend(content);
}

/// LEB128.
fn leb(mut n: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = u8::try_from(n & 0x7f).expect("seven bits");
        n >>= 7;
        if n == 0 {
            bytes.push(low);
            return bytes;
        }
        bytes.push(low | 0x80);
    }
}

//! The contract of `plugin-sdk/wit` as Rust types, made by wasmtime's `bindgen!`.
//!
//! Only the types and the traits of the imports are used. Exports are looked up by
//! hand in [`super::contract`], because a component may export any of the hooks.

wasmtime::component::bindgen!({
    path: "../../plugin-sdk/wit",
    world: "all",
    imports: { "lamina:plugin/fetch": async | trappable, default: trappable },
    additional_derives: [PartialEq, Clone],
});

pub use self::lamina::plugin::{clock, fetch, kv, log, random, types};

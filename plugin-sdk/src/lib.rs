//! Write Lamina plugins in Rust.
//!
//! A plugin is a type that implements [`KeyPlugin`], [`LoaderPlugin`], [`RequestPlugin`] or
//! [`ResponsePlugin`], and one line that exports it. Compile it as a `cdylib` for `wasm32-unknown-unknown`;
//! the gateway takes the `.wasm` file as it is.
//!
//! ```
//! use lamina_plugin::{CacheKey, KeyDecision, KeyInputs, KeyNeeds, KeyPlugin, Manifest};
//!
//! /// One cache entry a path and currency, whatever else the query says.
//! struct ByCurrency;
//!
//! impl KeyPlugin for ByCurrency {
//!     fn new(_config: &str) -> Result<Self, String> {
//!         Ok(Self)
//!     }
//!
//!     fn manifest(&self) -> Manifest {
//!         Manifest::new("by-currency", "1.0.0").needs(KeyNeeds::url().without_query().cookie("currency"))
//!     }
//!
//!     fn key(&self, inputs: &KeyInputs) -> KeyDecision {
//!         CacheKey::new(inputs.url()).part(inputs.cookie("currency").unwrap_or("EUR")).into()
//!     }
//! }
//!
//! lamina_plugin::export_key!(ByCurrency);
//! # fn main() {}
//! ```
//!
//! Inside the gateway a panic becomes an error line in its log, under the plugin's
//! name. Outside of it, in `cargo test`, a plugin is plain Rust: call its methods.

pub mod bindings;
mod export;
pub mod fetch;
pub mod granted;
mod heads;
mod key;
mod load;
pub mod log;
mod query;

pub use bindings::lamina::plugin::types::{
    CacheKey, Context, Field, Header, KeyDecision, KeyInputs, KeyNeeds, KeyRules, LoadDecision,
    Manifest, QueryNeed, Reads, Request, RequestChange, RequestDecision, RequestHead, Response,
    ResponseChange, ResponseDecision, ResponseHead,
};
pub use export::start;
pub use query::Query;

/// Hook: derives the cache key.
pub trait KeyPlugin: Sized {
    /// Reads the plugin's `config`: JSON text, `{}` when the YAML has none. The
    /// error is shown to whoever starts the gateway.
    fn new(config: &str) -> Result<Self, String>;

    /// What the plugin is and which inputs its key depends on.
    fn manifest(&self) -> Manifest;

    /// The key. A pure function: equal inputs are answered from the gateway's
    /// memory, without a call.
    fn key(&self, inputs: &KeyInputs) -> KeyDecision;
}

/// Hook: looks at each request before its key is derived.
pub trait RequestPlugin: Sized {
    /// As [`KeyPlugin::new`].
    fn new(config: &str) -> Result<Self, String>;

    /// What the plugin is, and what it reads.
    fn manifest(&self) -> Manifest;

    /// What becomes of the request.
    fn on_request(&self, request: RequestHead) -> RequestDecision;
}

/// Hook: looks at each loaded response before it is judged for the cache.
pub trait ResponsePlugin: Sized {
    /// As [`KeyPlugin::new`].
    fn new(config: &str) -> Result<Self, String>;

    /// What the plugin is, and what it reads.
    fn manifest(&self) -> Manifest;

    /// What becomes of the response.
    fn on_response(&self, request: RequestHead, response: ResponseHead) -> ResponseDecision;
}

/// Hook: loads what the cache does not have.
pub trait LoaderPlugin: Sized {
    /// As [`KeyPlugin::new`].
    fn new(config: &str) -> Result<Self, String>;

    /// What the plugin is.
    fn manifest(&self) -> Manifest;

    /// The response, or where to get it. May use [`fetch`].
    fn load(&self, request: Request, context: Context) -> LoadDecision;
}

impl Manifest {
    /// A manifest that declares no inputs.
    pub fn new(name: &str, version: &str) -> Self {
        Self {
            name: name.into(),
            version: version.into(),
            inputs: KeyNeeds::nothing(),
            declarative: None,
            reads: Reads {
                headers: Vec::new(),
                cookies: Vec::new(),
            },
        }
    }

    /// Declares headers of the client's request that the hooks beside `key` get. A name may
    /// end in `*`.
    pub fn reads_headers(mut self, names: &[&str]) -> Self {
        self.reads
            .headers
            .extend(names.iter().map(|name| name.to_string()));
        self
    }

    /// Declares cookies that the hooks beside `key` get, likewise.
    pub fn reads_cookies(mut self, names: &[&str]) -> Self {
        self.reads
            .cookies
            .extend(names.iter().map(|name| name.to_string()));
        self
    }

    /// Declares the inputs of the key.
    pub fn needs(mut self, inputs: KeyNeeds) -> Self {
        self.inputs = inputs;
        self
    }

    /// Has the gateway derive the key by itself; `key` is then never called.
    pub fn declarative(mut self, rules: KeyRules) -> Self {
        self.declarative = Some(rules);
        self
    }
}

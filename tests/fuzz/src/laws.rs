//! The laws, a file a subject, each with its input's form at the top; a target is one of
//! them, or a few that read the same form.

mod age;
mod cache_control;
mod cache_groups;
mod conditional;
mod config;
mod date;
mod event;
mod forward;
mod forwarded;
mod frames;
mod framing;
mod guard;
mod key;
mod origin_head;
mod parts;
mod path;
mod pattern;
mod plugin_key;
mod policy;
mod proxy_protocol;
mod purge;
mod range;
mod record;
mod reference;
mod status;
mod tags;
mod targeted;
mod units;
mod vary;

/// The laws of one subject over one input.
pub type Law = fn(&[u8]);

/// A target: its name, which is that of its corpus, and its laws.
pub type Target = (&'static str, &'static [Law]);

/// Every target.
pub const TARGETS: [Target; 24] = [
    ("cache_control", &[cache_control::check]),
    ("clock", &[age::check, date::check]),
    ("conditional", &[conditional::check]),
    ("config", &[config::check]),
    ("event", &[event::check]),
    ("forward", &[forward::check, forwarded::check]),
    ("frames", &[frames::check]),
    ("framing", &[framing::check]),
    ("guard", &[guard::check]),
    ("key", &[key::check]),
    ("origin_head", &[origin_head::check]),
    ("parts", &[parts::check]),
    ("path", &[path::check]),
    ("pattern", &[pattern::check]),
    ("plugin_key", &[plugin_key::check]),
    ("policy", &[policy::check, tags::check]),
    ("proxy_protocol", &[proxy_protocol::check]),
    ("purge", &[purge::check]),
    ("range", &[range::check]),
    ("record", &[record::check]),
    ("reference", &[reference::check]),
    ("structured", &[targeted::check, cache_groups::check]),
    ("texts", &[units::check, status::check]),
    ("vary", &[vary::check]),
];

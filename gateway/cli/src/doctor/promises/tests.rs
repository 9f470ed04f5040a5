//! The sentences that follow from a configuration, and the settings that change them.

use super::of;
use lamina_edge::config;

fn words(rest: &str) -> String {
    let text = format!(
        "version: 1\nlisteners: [{{ address: 127.0.0.1:0 }}]\nupstreams: {{ o: http://127.0.0.1:1 }}\n\
         routes: [{{ name: api, match: {{ path: /api/* }}, upstream: o, policy: {{ max_staleness: 30s }} }}, {{ name: site, upstream: o }}]\n{rest}\n"
    );
    let config = config::parse(&text, "x.yaml", &|_| None);
    of(&config.unwrap_or_else(|problems| panic!("{problems}"))).join("\n")
}

#[track_caller]
fn says(words: &str, wanted: &[&str]) {
    for wanted in wanted {
        assert!(words.contains(wanted), "{wanted:?} is not in:\n{words}");
    }
}

#[track_caller]
fn says_not(words: &str, unwanted: &[&str]) {
    for unwanted in unwanted {
        assert!(!words.contains(unwanted), "{unwanted:?} is in:\n{words}");
    }
}

const LOG: &str = "cache: { l2: { redis: {} } }";

fn jetstream(more: &str) -> String {
    words(&format!(
        "bus: {{ nats: {{ mode: jetstream, jetstream: {{ durable_name: edge-1{more} }} }} }}"
    ))
}

fn rabbitmq(more: &str) -> String {
    words(&format!("bus: {{ rabbitmq: {{ {more} }} }}"))
}

#[test]
fn without_a_bus_purges_stay_here_unless_a_log_is_shared() {
    says(&words(""), &["purges reach only this node"]);
    let shared = words(LOG);
    says(
        &shared,
        &[
            "has read the log in Redis",
            "applies only on the node that received it",
        ],
    );
    says_not(&shared, &["reach only this node"]);
    let both = words(&format!("{LOG}\nbus: {{ nats: {{}} }}"));
    says(&both, &["only the bus distributes purges"]);
    says_not(&both, &["applies only on the node that received it"]);
}

#[test]
fn at_most_once_is_bounded_by_the_heartbeat() {
    for (bus, name) in [
        ("nats: {}", "NATS delivers at most once"),
        ("redis: {}", "Redis Pub/Sub delivers at most once"),
        ("rabbitmq: {}", "RabbitMQ delivers at most once"),
    ] {
        let told = words(&format!("bus: {{ heartbeat_interval: 7s, {bus} }}"));
        says(
            &told,
            &[name, "after 7s at most", "validated at its origin, once"],
        );
    }
}

#[test]
fn a_shared_log_tells_who_was_away_what_it_missed() {
    let told = words(&format!("{LOG}\nbus: {{ redis: {{}} }}"));
    says(
        &told,
        &[
            "are read from the log in Redis",
            "except those in Redis's log",
        ],
    );
    says_not(&told, &["may be lost for it"]);
}

#[test]
fn what_jetstream_keeps_depends_on_where_and_how_long() {
    let told = jetstream("");
    says(
        &told,
        &[
            "as edge-1",
            "on the disk of one server",
            "grows without a limit",
            "are delivered when it is back",
        ],
    );
    says_not(&told, &["at most once", "may be lost for it"]);
    says(
        &jetstream(", storage: memory"),
        &["when the server restarts, the kept purges are lost"],
    );
    says(
        &jetstream(", replicas: 5, max_age_ms: 60000, max_msgs: 10"),
        &[
            "on the disks of 5 servers, and works while 2",
            "older than 1m (max_age_ms) and what is beyond 10 messages",
        ],
    );
    let memory = jetstream(", storage: memory, replicas: 3");
    says(&memory, &["works while 1 of 3 servers are down"]);
}

#[test]
fn rabbitmq_keeps_purges_in_durable_mode_alone() {
    let durable = rabbitmq("durable_invalidation_mode: true, queue_name: q");
    says(
        &durable,
        &[
            "in the queue q",
            "longer than 7d",
            "are delivered when it is back",
        ],
    );
    let forever = rabbitmq("durable_invalidation_mode: true, queue_name: q, queue_expires: 0s");
    says(&forever, &["grows until you delete it"]);
    says(
        &rabbitmq("durable: true"),
        &["at most once", "keep no purge"],
    );
    let half = rabbitmq("queue_name: q, exclusive_queue: false, auto_delete_queue: false");
    says(
        &half,
        &["at most once", "not relied on; nothing deletes it"],
    );
    says_not(&rabbitmq(""), &["durable"]);
}

#[test]
fn what_waits_for_the_broker_depends_on_the_retry_queue() {
    let queued = words("bus: { nats: {}, retry_queue: { max_size: 77 } }");
    says(
        &queued,
        &[
            "up to 77 purges (16MiB) wait",
            "could not publish yet are lost",
        ],
    );
    let at_once = words("bus: { nats: {}, retry_queue: { enabled: false } }");
    says(
        &at_once,
        &["does not wait", "notice it with a heartbeat (1s)"],
    );
    says_not(&at_once, &["could not publish yet are lost"]);
    let bus = "nats: { mode: jetstream, jetstream: { durable_name: a } }";
    let durable = words(&format!(
        "bus: {{ {bus}, retry_queue: {{ enabled: false }} }}"
    ));
    says(&durable, &["with this node's next purge, and not before"]);
    let never = words("bus: { nats: {}, circuit_breaker: { failure_threshold: 0 } }");
    says_not(&never, &["no values are published for"]);
}

#[test]
fn values_are_told_as_configured() {
    let told = words("bus: { nats: {} }");
    says(
        &told,
        &[
            "values up to 32KiB",
            "whoever can publish",
            "holds or that were requested recently",
        ],
    );
    says(
        &words("bus: { nats: {}, broadcast_set: false }"),
        &["load for themselves"],
    );
    says(&words("bus: { nats: {}, priming: off }"), &["accepts none"]);
    says(
        &words("bus: { nats: {}, priming: always }"),
        &["may push out"],
    );
}

#[test]
fn who_does_not_listen_is_told_so() {
    let deaf = words("bus: { nats: {}, subscribe_to_events: false }");
    says(
        &deaf,
        &["does not listen; it keeps serving what others purge"],
    );
    says_not(&deaf, &["when it is back, everything that it stored"]);
}

#[test]
fn the_bound_is_max_staleness_where_a_route_has_one() {
    let told = words("bus: { nats: {} }");
    says(
        &told,
        &[
            "what is older than 30s",
            "except on site, without a max_staleness",
        ],
    );
    let all = words("bus: { nats: {} }\ndefaults: { max_staleness: 1m }");
    says(&all, &["what is older than 1m (max_staleness)"]);
    says_not(&all, &["without a max_staleness"]);
}

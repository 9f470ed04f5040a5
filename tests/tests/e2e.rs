//! Every suite, in one binary: what Lamina does, seen from outside.
//!
//! One file an area under `e2e/`. Each test starts its own gateway and origin, so
//! any of them runs alone: `cargo test -p e2e coalescing::`.

// A failed unwrap in a test is a failed test.
#![allow(clippy::unwrap_used)]

#[path = "e2e/acme.rs"]
mod acme;
#[path = "e2e/acme_deaths.rs"]
mod acme_deaths;
#[path = "e2e/acme_dns.rs"]
mod acme_dns;
#[path = "e2e/acme_failures.rs"]
mod acme_failures;
#[path = "e2e/acme_first_file.rs"]
mod acme_first_file;
#[path = "e2e/acme_nodes.rs"]
mod acme_nodes;
#[path = "e2e/acme_on_demand.rs"]
mod acme_on_demand;
#[path = "e2e/acme_operator.rs"]
mod acme_operator;
#[path = "e2e/acme_schedule.rs"]
mod acme_schedule;
#[path = "e2e/admin.rs"]
mod admin;
#[path = "e2e/admin_browser.rs"]
mod admin_browser;
#[path = "e2e/admin_places.rs"]
mod admin_places;
#[path = "e2e/admin_socket.rs"]
mod admin_socket;
#[path = "e2e/architecture.rs"]
mod architecture;
#[path = "e2e/attack_cache.rs"]
mod attack_cache;
#[path = "e2e/attack_http1.rs"]
mod attack_http1;
#[path = "e2e/attack_http1_slow.rs"]
mod attack_http1_slow;
#[path = "e2e/attack_http2.rs"]
mod attack_http2;
#[path = "e2e/attack_http2_floods.rs"]
mod attack_http2_floods;
#[path = "e2e/attack_listener.rs"]
mod attack_listener;
#[path = "e2e/attack_origin.rs"]
mod attack_origin;
#[path = "e2e/attack_origin_http2.rs"]
mod attack_origin_http2;
#[path = "e2e/bodiless.rs"]
mod bodiless;
#[path = "e2e/bus_attacker.rs"]
mod bus_attacker;
#[path = "e2e/bus_doctor.rs"]
mod bus_doctor;
#[path = "e2e/bus_faults.rs"]
mod bus_faults;
#[path = "e2e/bus_log.rs"]
mod bus_log;
#[path = "e2e/bus_nats.rs"]
mod bus_nats;
#[path = "e2e/bus_node.rs"]
mod bus_node;
#[path = "e2e/bus_rabbitmq.rs"]
mod bus_rabbitmq;
#[path = "e2e/bus_rabbitmq_alarm.rs"]
mod bus_rabbitmq_alarm;
#[path = "e2e/bus_rabbitmq_broker.rs"]
mod bus_rabbitmq_broker;
#[path = "e2e/bus_rabbitmq_outage.rs"]
mod bus_rabbitmq_outage;
#[path = "e2e/bus_redis.rs"]
mod bus_redis;
#[path = "e2e/bus_refused.rs"]
mod bus_refused;
#[path = "e2e/bus_restored.rs"]
mod bus_restored;
#[path = "e2e/bus_rights.rs"]
mod bus_rights;
#[path = "e2e/bus_sealed.rs"]
mod bus_sealed;
#[path = "e2e/bus_strangers.rs"]
mod bus_strangers;
#[path = "e2e/bus_tls.rs"]
mod bus_tls;
#[path = "e2e/bus_transport.rs"]
mod bus_transport;
#[path = "e2e/caller.rs"]
mod caller;
#[path = "e2e/calls_and_events.rs"]
mod calls_and_events;
#[path = "e2e/cli.rs"]
mod cli;
#[path = "e2e/client_gone.rs"]
mod client_gone;
#[path = "e2e/cluster.rs"]
mod cluster;
#[path = "e2e/cms_clients.rs"]
mod cms_clients;
#[path = "e2e/cms_foshttpcache.rs"]
mod cms_foshttpcache;
#[path = "e2e/cms_mediawiki.rs"]
mod cms_mediawiki;
#[path = "e2e/cms_wagtail.rs"]
mod cms_wagtail;
#[path = "e2e/cms_wordpress.rs"]
mod cms_wordpress;
#[path = "e2e/coalescing.rs"]
mod coalescing;
#[path = "e2e/command_line_help.rs"]
mod command_line_help;
#[path = "e2e/compose.rs"]
mod compose;
#[path = "e2e/conditional.rs"]
mod conditional;
#[path = "e2e/config_fmt.rs"]
mod config_fmt;
#[path = "e2e/config_includes.rs"]
mod config_includes;
#[path = "e2e/config_show.rs"]
mod config_show;
#[path = "e2e/cookies.rs"]
mod cookies;
#[path = "e2e/doctor_crash.rs"]
mod doctor_crash;
#[path = "e2e/doctor_rights.rs"]
mod doctor_rights;
#[path = "e2e/document_commands.rs"]
mod document_commands;
#[path = "e2e/documents.rs"]
mod documents;
#[path = "e2e/esi.rs"]
mod esi;
#[path = "e2e/esi_held.rs"]
mod esi_held;
#[path = "e2e/expectations.rs"]
mod expectations;
#[path = "e2e/followers.rs"]
mod followers;
#[path = "e2e/forwarding.rs"]
mod forwarding;
#[path = "e2e/groups.rs"]
mod groups;
#[path = "e2e/grpc_errors.rs"]
mod grpc_errors;
#[path = "e2e/h3.rs"]
mod h3;
#[path = "e2e/h3_browser.rs"]
mod h3_browser;
#[path = "e2e/h3_connections.rs"]
mod h3_connections;
#[path = "e2e/h3_drain.rs"]
mod h3_drain;
#[path = "e2e/h3_early.rs"]
mod h3_early;
#[path = "e2e/h3_frames.rs"]
mod h3_frames;
#[path = "e2e/h3_heads.rs"]
mod h3_heads;
#[path = "e2e/h3_interim.rs"]
mod h3_interim;
#[path = "e2e/h3_limits.rs"]
mod h3_limits;
#[path = "e2e/h3_metrics.rs"]
mod h3_metrics;
#[path = "e2e/h3_packets.rs"]
mod h3_packets;
#[path = "e2e/h3_policies.rs"]
mod h3_policies;
#[path = "e2e/h3_priority.rs"]
mod h3_priority;
#[path = "e2e/h3_workers.rs"]
mod h3_workers;
#[path = "e2e/harness.rs"]
mod harness;
#[path = "e2e/head.rs"]
mod head;
#[path = "e2e/health.rs"]
mod health;
#[path = "e2e/held_evicted.rs"]
mod held_evicted;
#[path = "e2e/held_kinds.rs"]
mod held_kinds;
#[path = "e2e/held_memory.rs"]
mod held_memory;
#[path = "e2e/held_second_tier.rs"]
mod held_second_tier;
#[path = "e2e/hit_for_miss.rs"]
mod hit_for_miss;
#[path = "e2e/inherited_sockets.rs"]
mod inherited_sockets;
#[path = "e2e/interim.rs"]
mod interim;
#[path = "e2e/invalidations.rs"]
mod invalidations;
#[path = "e2e/key.rs"]
mod key;
#[path = "e2e/l2.rs"]
mod l2;
#[path = "e2e/l2_clocks.rs"]
mod l2_clocks;
#[path = "e2e/l2_crash.rs"]
mod l2_crash;
#[path = "e2e/l2_disk_failures.rs"]
mod l2_disk_failures;
#[path = "e2e/l2_disk_full.rs"]
mod l2_disk_full;
#[path = "e2e/l2_forged_lease.rs"]
mod l2_forged_lease;
#[path = "e2e/l2_forged_log.rs"]
mod l2_forged_log;
#[path = "e2e/l2_forged_record.rs"]
mod l2_forged_record;
#[path = "e2e/l2_frozen.rs"]
mod l2_frozen;
#[path = "e2e/l2_gateway_damage.rs"]
mod l2_gateway_damage;
#[path = "e2e/l2_gateway_faults.rs"]
mod l2_gateway_faults;
#[path = "e2e/l2_gateway_groups.rs"]
mod l2_gateway_groups;
#[path = "e2e/l2_holes.rs"]
mod l2_holes;
#[path = "e2e/l2_index.rs"]
mod l2_index;
#[path = "e2e/l2_namespaces.rs"]
mod l2_namespaces;
#[path = "e2e/l2_no_purges.rs"]
mod l2_no_purges;
#[path = "e2e/l2_races.rs"]
mod l2_races;
#[path = "e2e/l2_redis.rs"]
mod l2_redis;
#[path = "e2e/l2_redis_evicts.rs"]
mod l2_redis_evicts;
#[path = "e2e/l2_redis_faults.rs"]
mod l2_redis_faults;
#[path = "e2e/l2_redis_groups.rs"]
mod l2_redis_groups;
#[path = "e2e/l2_redis_index.rs"]
mod l2_redis_index;
#[path = "e2e/l2_rolled_back.rs"]
mod l2_rolled_back;
#[path = "e2e/l2_soft.rs"]
mod l2_soft;
#[path = "e2e/l2_tls.rs"]
mod l2_tls;
#[path = "e2e/l2_turns.rs"]
mod l2_turns;
#[path = "e2e/large_ranges.rs"]
mod large_ranges;
#[path = "e2e/limits.rs"]
mod limits;
#[path = "e2e/loader_methods.rs"]
mod loader_methods;
#[path = "e2e/long_streams.rs"]
mod long_streams;
#[path = "e2e/many_routes.rs"]
mod many_routes;
#[path = "e2e/match_values.rs"]
mod match_values;
#[path = "e2e/migrate_command.rs"]
mod migrate_command;
#[path = "e2e/migrate_counterparts.rs"]
mod migrate_counterparts;
#[path = "e2e/migrate_drafts.rs"]
mod migrate_drafts;
#[path = "e2e/migrate_vcl_drafts.rs"]
mod migrate_vcl_drafts;
#[path = "e2e/observability.rs"]
mod observability;
#[path = "e2e/origin_query.rs"]
mod origin_query;
#[path = "e2e/origin_tls.rs"]
mod origin_tls;
#[path = "e2e/origin_tls_attacks.rs"]
mod origin_tls_attacks;
#[path = "e2e/origin_tls_failures.rs"]
mod origin_tls_failures;
#[path = "e2e/origin_tls_identity.rs"]
mod origin_tls_identity;
#[path = "e2e/origin_tls_protocol.rs"]
mod origin_tls_protocol;
#[path = "e2e/origin_tls_unverified.rs"]
mod origin_tls_unverified;
#[path = "e2e/packaging.rs"]
mod packaging;
#[path = "e2e/packaging_operator.rs"]
mod packaging_operator;
#[path = "e2e/parts.rs"]
mod parts;
#[path = "e2e/paths.rs"]
mod paths;
#[path = "e2e/plugin_bad.rs"]
mod plugin_bad;
#[path = "e2e/plugin_bad_fetches.rs"]
mod plugin_bad_fetches;
#[path = "e2e/plugin_bad_files.rs"]
mod plugin_bad_files;
#[path = "e2e/plugin_compile.rs"]
mod plugin_compile;
#[path = "e2e/plugin_ends.rs"]
mod plugin_ends;
#[path = "e2e/plugin_granted.rs"]
mod plugin_granted;
#[path = "e2e/plugin_guide.rs"]
mod plugin_guide;
#[path = "e2e/plugin_hooks.rs"]
mod plugin_hooks;
#[path = "e2e/plugin_identity.rs"]
mod plugin_identity;
#[path = "e2e/plugin_kit.rs"]
mod plugin_kit;
#[path = "e2e/plugin_limits.rs"]
mod plugin_limits;
#[path = "e2e/plugin_memory.rs"]
mod plugin_memory;
#[path = "e2e/plugin_mistakes.rs"]
mod plugin_mistakes;
#[path = "e2e/plugin_quarantine.rs"]
mod plugin_quarantine;
#[path = "e2e/plugin_responses.rs"]
mod plugin_responses;
#[path = "e2e/plugin_shipped.rs"]
mod plugin_shipped;
#[path = "e2e/plugin_swap.rs"]
mod plugin_swap;
#[path = "e2e/plugin_wasi.rs"]
mod plugin_wasi;
#[path = "e2e/plugin_watch.rs"]
mod plugin_watch;
#[path = "e2e/plugins.rs"]
mod plugins;
#[path = "e2e/policy.rs"]
mod policy;
#[path = "e2e/proxying.rs"]
mod proxying;
#[path = "e2e/purge.rs"]
mod purge;
#[path = "e2e/purge_clients.rs"]
mod purge_clients;
#[path = "e2e/purge_dialects.rs"]
mod purge_dialects;
#[path = "e2e/purge_forms.rs"]
mod purge_forms;
#[path = "e2e/purge_races.rs"]
mod purge_races;
#[path = "e2e/purge_schedule.rs"]
mod purge_schedule;
#[path = "e2e/purge_spellings.rs"]
mod purge_spellings;
#[path = "e2e/purge_wait.rs"]
mod purge_wait;
#[path = "e2e/quickstart.rs"]
mod quickstart;
#[path = "e2e/rate_limits.rs"]
mod rate_limits;
#[path = "e2e/rate_limits_shared.rs"]
mod rate_limits_shared;
#[path = "e2e/recent_requests.rs"]
mod recent_requests;
#[path = "e2e/record.rs"]
mod record;
#[path = "e2e/reload.rs"]
mod reload;
#[path = "e2e/reload_files.rs"]
mod reload_files;
#[path = "e2e/reload_kept.rs"]
mod reload_kept;
#[path = "e2e/reload_listeners.rs"]
mod reload_listeners;
#[path = "e2e/reload_plan.rs"]
mod reload_plan;
#[path = "e2e/reload_plan_keys.rs"]
mod reload_plan_keys;
#[path = "e2e/reload_plan_told.rs"]
mod reload_plan_told;
#[path = "e2e/reload_refused.rs"]
mod reload_refused;
#[path = "e2e/reload_state.rs"]
mod reload_state;
#[path = "e2e/reload_under_load.rs"]
mod reload_under_load;
#[path = "e2e/reload_watch.rs"]
mod reload_watch;
#[path = "e2e/request_forms.rs"]
mod request_forms;
#[path = "e2e/response_forms.rs"]
mod response_forms;
#[path = "e2e/rfc.rs"]
mod rfc;
#[path = "e2e/rules_access.rs"]
mod rules_access;
#[path = "e2e/rules_answers.rs"]
mod rules_answers;
#[path = "e2e/rules_basic_auth.rs"]
mod rules_basic_auth;
#[path = "e2e/rules_cleaning.rs"]
mod rules_cleaning;
#[path = "e2e/rules_compress.rs"]
mod rules_compress;
#[path = "e2e/rules_cors.rs"]
mod rules_cors;
#[path = "e2e/rules_forward_auth.rs"]
mod rules_forward_auth;
#[path = "e2e/rules_jwt.rs"]
mod rules_jwt;
#[path = "e2e/rules_laws.rs"]
mod rules_laws;
#[path = "e2e/rules_table.rs"]
mod rules_table;
#[path = "e2e/rules_told.rs"]
mod rules_told;
#[path = "e2e/rules_upstreams.rs"]
mod rules_upstreams;
#[path = "e2e/secrets.rs"]
mod secrets;
#[path = "e2e/service_manager.rs"]
mod service_manager;
#[path = "e2e/sharing.rs"]
mod sharing;
#[path = "e2e/slow_streams.rs"]
mod slow_streams;
#[path = "e2e/stale.rs"]
mod stale;
#[path = "e2e/steady_readers.rs"]
mod steady_readers;
#[path = "e2e/storage.rs"]
mod storage;
#[path = "e2e/streaming.rs"]
mod streaming;
#[path = "e2e/supply.rs"]
mod supply;
#[path = "e2e/targeted.rs"]
mod targeted;
#[path = "e2e/tls.rs"]
mod tls;
#[path = "e2e/tls_clients.rs"]
mod tls_clients;
#[path = "e2e/tls_config.rs"]
mod tls_config;
#[path = "e2e/tls_files.rs"]
mod tls_files;
#[path = "e2e/tls_ja4.rs"]
mod tls_ja4;
#[path = "e2e/tls_limits.rs"]
mod tls_limits;
#[path = "e2e/tls_many.rs"]
mod tls_many;
#[path = "e2e/tls_names.rs"]
mod tls_names;
#[path = "e2e/tls_redirect.rs"]
mod tls_redirect;
#[path = "e2e/tls_review.rs"]
mod tls_review;
#[path = "e2e/tls_scanners.rs"]
mod tls_scanners;
#[path = "e2e/tls_tickets.rs"]
mod tls_tickets;
#[path = "e2e/tls_told.rs"]
mod tls_told;
#[path = "e2e/tls_writes.rs"]
mod tls_writes;
#[path = "e2e/unusual.rs"]
mod unusual;
#[path = "e2e/upgrade.rs"]
mod upgrade;
#[path = "e2e/upgrade_purges.rs"]
mod upgrade_purges;
#[path = "e2e/upgrade_refused.rs"]
mod upgrade_refused;
#[path = "e2e/upgrade_shared.rs"]
mod upgrade_shared;
#[path = "e2e/upgrade_warm.rs"]
mod upgrade_warm;
#[path = "e2e/upstream_calls.rs"]
mod upstream_calls;
#[path = "e2e/upstream_checks.rs"]
mod upstream_checks;
#[path = "e2e/upstream_choice.rs"]
mod upstream_choice;
#[path = "e2e/upstream_connections.rs"]
mod upstream_connections;
#[path = "e2e/upstream_drains.rs"]
mod upstream_drains;
#[path = "e2e/upstream_failures.rs"]
mod upstream_failures;
#[path = "e2e/upstream_names.rs"]
mod upstream_names;
#[path = "e2e/upstream_overload.rs"]
mod upstream_overload;
#[path = "e2e/upstream_places.rs"]
mod upstream_places;
#[path = "e2e/upstream_pool.rs"]
mod upstream_pool;
#[path = "e2e/upstream_refusals.rs"]
mod upstream_refusals;
#[path = "e2e/upstream_shield.rs"]
mod upstream_shield;
#[path = "e2e/upstream_starts.rs"]
mod upstream_starts;
#[path = "e2e/upstream_states.rs"]
mod upstream_states;
#[path = "e2e/upstream_tools.rs"]
mod upstream_tools;
#[path = "e2e/warm_purges.rs"]
mod warm_purges;
#[path = "e2e/warm_restart.rs"]
mod warm_restart;

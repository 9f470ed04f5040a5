//! Asks name servers for addresses and services.
//!
//! `/etc/hosts` and `/etc/resolv.conf` are read again when they change. The families of addresses are
//! asked for side by side, and each keeps what was known of it if only that one fails.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::net::{DnsError, NetError};
use hickory_resolver::proto::op::{Query, ResponseCode};
use hickory_resolver::proto::rr::{Name, RData, RecordType};
use hickory_resolver::{Hosts, Resolver, TokioResolver};
use parking_lot::Mutex;
use tokio::time::timeout;

use super::{NameAnswer, NameQuestion, NameRecords, NamedEndpoint, ServiceRecord};
use crate::origin::config::NameServerAddress;

/// The name servers that upstreams use.
#[derive(Default)]
pub(super) struct NameServers {
    clients: Mutex<HashMap<Vec<NameServerAddress>, NameServerClient>>,
}

/// A client of some name servers, and what it was made of.
#[derive(Clone)]
struct NameServerClient {
    /// Or why there is none.
    resolver: Result<TokioResolver, String>,
    /// The same for servers that do not know EDNS (RFC 6891 §7).
    plain: Result<TokioResolver, String>,
    hosts: Arc<Hosts>,
    made_of: SystemFiles,
}

/// When the files of the system that tell about names were changed.
#[derive(Clone, PartialEq, Eq, Debug)]
struct SystemFiles([Option<SystemTime>; 2]);

/// What a question about records of one type has led to.
enum RecordsFound<T> {
    Some(Vec<T>, Duration),
    /// The name servers say that there are none.
    None(String),
    Failed(String),
}

/// The addresses of a host and for how long they are good, or why there are none.
type FoundAddresses = Result<(Vec<IpAddr>, Duration), String>;

/// The time limit for the addresses of one host of a service.
const HOST_LIMIT: Duration = Duration::from_secs(5);
/// The time limit for those of all hosts of a service together: with the records of the service a
/// look-up takes no longer than its own limit.
const ALL_HOSTS_LIMIT: Duration = Duration::from_secs(6);
/// The most hosts of a service that are asked for at the same time.
const HOSTS_AT_ONCE: usize = 32;
/// The time limit for the answer of one name server.
const ANSWER_LIMIT: Duration = Duration::from_secs(2);
/// How long the second family of addresses is waited for when the first is there.
const FAMILY_DELAY: Duration = Duration::from_secs(1);
/// The most bytes of an answer over UDP; longer ones are fetched over TCP. Larger packets may be
/// lost on the way when they are fragmented (DNS flag day 2020).
const UDP_PAYLOAD: u16 = 1232;
/// For how long an entry of `/etc/hosts` is believed: the file may change at any time.
const HOSTS_LIVE: Duration = Duration::ZERO;

/// The time limit for each of so many hosts: also where nobody answers about any of them, all have
/// had their turn when the time of all is over.
fn host_limit(hosts: usize) -> Duration {
    let turns = hosts.div_ceil(HOSTS_AT_ONCE).max(1) as u32;
    (ALL_HOSTS_LIMIT / turns).min(HOST_LIMIT)
}

/// How long answers over UDP may be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum UdpAnswers {
    /// [`UDP_PAYLOAD`], by EDNS.
    Extended,
    /// 512 bytes (RFC 1035 §4.2.1).
    Plain,
}

impl NameServers {
    /// Asks for the records of a name. `known` is the last good answer; parts of it stay where name
    /// servers fail. The answer is not empty.
    ///
    /// # Errors
    /// Why there is no answer, in words.
    pub(super) async fn ask(
        &self,
        question: &NameQuestion,
        known: Option<&NameAnswer>,
    ) -> Result<(NameAnswer, Duration), String> {
        let client = self.client(&question.rules.servers);
        let known = known.map_or(&[][..], |known| &known.endpoints);
        let (endpoints, live) = match question.records {
            NameRecords::Addresses => {
                let addresses = known.iter().map(|one| one.address).collect::<Vec<_>>();
                let (found, live) = client.addresses(&question.name, &addresses).await?;
                let endpoints = found.into_iter().map(|address| NamedEndpoint {
                    address,
                    service: None,
                });
                (endpoints.collect(), live)
            }
            NameRecords::Services => client.services(&question.name, known).await?,
        };
        Ok((NameAnswer::new(endpoints), live))
    }

    /// The client of these name servers, or of those of the system.
    fn client(&self, servers: &[NameServerAddress]) -> NameServerClient {
        let files = SystemFiles::now();
        let mut clients = self.clients.lock();
        if let Some(client) = clients.get(servers).filter(|known| known.made_of == files) {
            return client.clone();
        }
        let client = NameServerClient {
            resolver: resolver(servers, UdpAnswers::Extended),
            plain: resolver(servers, UdpAnswers::Plain),
            hosts: Arc::new(Hosts::from_system().unwrap_or_default()),
            made_of: files,
        };
        clients.insert(servers.to_vec(), client.clone());
        client
    }
}

impl SystemFiles {
    fn now() -> Self {
        let changed = |file: &str| Path::new(file).metadata().and_then(|file| file.modified());
        Self(["/etc/hosts", "/etc/resolv.conf"].map(|file| changed(file).ok()))
    }
}

impl NameServerClient {
    /// The addresses of a host, of both families. Of a family that can't be found out the known
    /// ones stay.
    async fn addresses(&self, host: &str, known: &[IpAddr]) -> FoundAddresses {
        let listed = self.in_hosts_file(host);
        if !listed.is_empty() {
            return Ok((listed, HOSTS_LIVE));
        }
        if is_localhost(host) {
            let loopback = [
                IpAddr::from(Ipv6Addr::LOCALHOST),
                Ipv4Addr::LOCALHOST.into(),
            ];
            return Ok((loopback.into(), Duration::MAX));
        }
        let (v4, v6) = self.both_families(host).await;
        let found = [(v4, RecordType::A), (v6, RecordType::AAAA)];
        if let [(RecordsFound::Some(..), _), _] | [_, (RecordsFound::Some(..), _)] = &found {
            let mut addresses = Vec::new();
            let mut live = Duration::MAX;
            for (records, family) in found {
                match records {
                    RecordsFound::Some(records, for_as_long) => {
                        addresses.extend(records);
                        live = live.min(for_as_long);
                    }
                    RecordsFound::None(_) => {}
                    RecordsFound::Failed(_) => {
                        let is_of_it = |ip: &&IpAddr| ip.is_ipv6() == (family == RecordType::AAAA);
                        addresses.extend(known.iter().filter(is_of_it));
                    }
                }
            }
            return Ok((addresses, live));
        }
        let [(v4, _), (v6, _)] = found;
        Err(match (v4, v6) {
            // A failure says more than a family that does not exist.
            (RecordsFound::Failed(why), _) | (_, RecordsFound::Failed(why)) => why,
            (RecordsFound::None(why), _) | (_, RecordsFound::None(why)) => why,
            (RecordsFound::Some(..), RecordsFound::Some(..)) => String::new(),
        })
    }

    /// Asks for both families side by side. When one is there, the other has [`FAMILY_DELAY`].
    async fn both_families(&self, host: &str) -> (RecordsFound<IpAddr>, RecordsFound<IpAddr>) {
        let v4 = self.records(host, RecordType::A, RData::ip_addr);
        let v6 = self.records(host, RecordType::AAAA, RData::ip_addr);
        tokio::pin!(v4, v6);
        let late = || RecordsFound::Failed("the name servers have not answered in time".to_owned());
        tokio::select! {
            found = &mut v4 => match found {
                RecordsFound::Some(..) => {
                    let other = timeout(FAMILY_DELAY, v6).await;
                    (found, other.unwrap_or_else(|_| late()))
                }
                _ => (found, v6.await),
            },
            found = &mut v6 => match found {
                RecordsFound::Some(..) => {
                    let other = timeout(FAMILY_DELAY, v4).await;
                    (other.unwrap_or_else(|_| late()), found)
                }
                _ => (v4.await, found),
            },
        }
    }

    /// The servers of a service. Of a host that can't be found out the known addresses stay.
    async fn services(
        &self,
        name: &str,
        known: &[NamedEndpoint],
    ) -> Result<(Vec<NamedEndpoint>, Duration), String> {
        let records = self.records(name, RecordType::SRV, |data| match data {
            RData::SRV(record) if !record.target.is_root() => Some(ServiceRecord {
                host: record.target.to_utf8().trim_end_matches('.').to_owned(),
                port: record.port,
                priority: record.priority,
                weight: record.weight,
            }),
            _ => None,
        });
        let (services, mut live) = match records.await {
            RecordsFound::Some(services, live) => (services, live),
            RecordsFound::None(why) | RecordsFound::Failed(why) => return Err(why),
        };
        let hosts = self.hosts_of(&services, known).await;
        let mut endpoints = Vec::new();
        let mut failed = None;
        for service in services {
            let addresses = match &hosts[&service.host] {
                Ok((addresses, for_as_long)) => {
                    live = live.min(*for_as_long);
                    addresses.clone()
                }
                Err(why) => {
                    failed = Some(format!("{}: {why}", service.host));
                    known_addresses(known, &service.host)
                }
            };
            endpoints.extend(addresses.into_iter().map(|address| NamedEndpoint {
                address,
                service: Some(service.clone()),
            }));
        }
        match failed {
            Some(why) if endpoints.is_empty() => Err(why),
            // It is asked again soon, since some servers of the service may be missing.
            Some(_) => Ok((endpoints, Duration::ZERO)),
            None => Ok((endpoints, live)),
        }
    }

    /// The addresses of all hosts of these services. Each is asked for once, and all side by side, so
    /// that hosts which nobody answers about do not use up the time of the others.
    async fn hosts_of(
        &self,
        services: &[ServiceRecord],
        known: &[NamedEndpoint],
    ) -> HashMap<String, FoundAddresses> {
        let hosts: HashSet<&str> = services.iter().map(|service| &*service.host).collect();
        let limit = host_limit(hosts.len());
        let asked = hosts.into_iter().map(|host| async move {
            let known = known_addresses(known, host);
            let found = timeout(limit, self.addresses(host, &known)).await;
            let late = || Err("the name servers have not answered in time".to_owned());
            (host.to_owned(), found.unwrap_or_else(|_| late()))
        });
        let asked: Vec<_> = asked.collect();
        let asked = futures_util::stream::iter(asked).buffer_unordered(HOSTS_AT_ONCE);
        asked.collect().await
    }

    fn in_hosts_file(&self, host: &str) -> Vec<IpAddr> {
        let Ok(name) = Name::from_utf8(host) else {
            return Vec::new();
        };
        let of = |family| {
            let found = self
                .hosts
                .lookup_static_host(&Query::query(name.clone(), family));
            let records = found
                .map(|found| found.answers().to_vec())
                .unwrap_or_default();
            records
                .into_iter()
                .filter_map(|record| record.data.ip_addr())
        };
        of(RecordType::A).chain(of(RecordType::AAAA)).collect()
    }

    /// Asks for the records of one type.
    async fn records<T>(
        &self,
        name: &str,
        records: RecordType,
        read: impl Fn(&RData) -> Option<T>,
    ) -> RecordsFound<T> {
        let why_none = |code: ResponseCode| match code {
            ResponseCode::NXDomain => format!("the name servers say that {name} does not exist"),
            _ => format!("the name servers say that {name} has no record of type {records}"),
        };
        let resolver = match &self.resolver {
            Ok(resolver) => resolver,
            Err(why) => return RecordsFound::Failed(why.clone()),
        };
        let mut looked_up = resolver.lookup(name, records).await;
        if looked_up.as_ref().is_err_and(may_be_due_to_edns)
            && let Ok(plain) = &self.plain
        {
            looked_up = plain.lookup(name, records).await;
        }
        match looked_up {
            Ok(found) => {
                let answers = found.answers();
                let found: Vec<T> = answers
                    .iter()
                    .filter_map(|record| read(&record.data))
                    .collect();
                // An alias on the way (CNAME) may live shorter than what it leads to.
                let live = answers.iter().map(|record| record.ttl).min();
                match live.filter(|_| !found.is_empty()) {
                    Some(live) => RecordsFound::Some(found, Duration::from_secs(live.into())),
                    None => RecordsFound::None(why_none(ResponseCode::NoError)),
                }
            }
            Err(error) if error.is_nx_domain() => {
                RecordsFound::None(why_none(ResponseCode::NXDomain))
            }
            Err(error) if error.is_no_records_found() => {
                RecordsFound::None(why_none(ResponseCode::NoError))
            }
            Err(error) => RecordsFound::Failed(format!(
                "the name servers give no answer about {name}: {error}"
            )),
        }
    }
}

/// The addresses that are known of the host of a service.
fn known_addresses(known: &[NamedEndpoint], host: &str) -> Vec<IpAddr> {
    let of_host = known.iter().filter(|endpoint| {
        let service = endpoint.service.as_ref();
        service.is_some_and(|service| service.host == host)
    });
    of_host.map(|endpoint| endpoint.address).collect()
}

/// Name servers are not asked for the machine itself (RFC 6761 §6.3).
fn is_localhost(host: &str) -> bool {
    let bare = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    bare == "localhost" || bare.ends_with(".localhost")
}

/// Whether a name server may not know EDNS: it does not understand the question.
fn may_be_due_to_edns(error: &NetError) -> bool {
    let code = match error {
        NetError::Dns(DnsError::ResponseCode(code)) => *code,
        NetError::Dns(DnsError::NoRecordsFound(none)) => none.response_code,
        _ => return false,
    };
    matches!(code, ResponseCode::FormErr | ResponseCode::NotImp)
}

/// A client of these name servers, or of those of the system.
fn resolver(servers: &[NameServerAddress], answers: UdpAnswers) -> Result<TokioResolver, String> {
    let provider = TokioRuntimeProvider::default();
    let mut builder = match servers {
        [] => Resolver::builder(provider)
            .map_err(|error| format!("/etc/resolv.conf can't be used: {error}"))?,
        listed => {
            let listed = listed.iter().map(name_server).collect();
            let config = ResolverConfig::from_parts(None, Vec::new(), listed);
            Resolver::builder_with_config(config, provider)
        }
    };
    set_options(builder.options_mut());
    builder.options_mut().edns0 = answers == UdpAnswers::Extended;
    let built = builder.build();
    built.map_err(|error| format!("the name servers can't be used: {error}"))
}

fn name_server(server: &NameServerAddress) -> NameServerConfig {
    let port = server.0.port();
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = port;
        connection
    });
    NameServerConfig::new(server.0.ip(), true, connections.into())
}

fn set_options(options: &mut ResolverOpts) {
    // Names are asked for when their time is over, and not before.
    options.cache_size = 0;
    options.use_hosts_file = ResolveHosts::Never;
    options.timeout = ANSWER_LIMIT;
    options.edns_payload_len = UDP_PAYLOAD;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As on a machine without `/etc/resolv.conf`.
    fn without_name_servers(hosts: &str) -> NameServerClient {
        let mut listed = Hosts::default();
        listed.read_hosts_conf(hosts.as_bytes()).unwrap();
        NameServerClient {
            resolver: Err("there is no name server".to_owned()),
            plain: Err("there is no name server".to_owned()),
            hosts: Arc::new(listed),
            made_of: SystemFiles::now(),
        }
    }

    #[tokio::test]
    async fn the_hosts_file_and_localhost_need_no_name_server() {
        let client = without_name_servers("10.1.2.3 app.test app\nfd00::7 app.test\n");
        let found = async |host: &str| match client.addresses(host, &[]).await {
            Ok((addresses, _)) => addresses.iter().map(IpAddr::to_string).collect(),
            Err(why) => vec![why],
        };
        assert_eq!(found("app.test").await, ["10.1.2.3", "fd00::7"]);
        assert_eq!(found("app").await, ["10.1.2.3"]);
        for local in ["localhost", "LocalHost.", "shop.localhost"] {
            assert_eq!(found(local).await, ["::1", "127.0.0.1"], "{local}");
        }
        assert_eq!(found("other.test").await, ["there is no name server"]);
    }

    #[test]
    fn the_settings_make_a_client() {
        let server = NameServerAddress("127.0.0.1:5353".parse().unwrap());
        for answers in [UdpAnswers::Extended, UdpAnswers::Plain] {
            assert!(resolver(&[server], answers).is_ok());
        }
    }
}

//! The cluster's names: which records a name has. Pure, over a [`View`].

use std::net::{IpAddr, Ipv4Addr};

use hickory_proto::rr::rdata::{self, SOA, SRV, TXT};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;

use super::view::{Backend, NamedPort, View, cluster_addresses, is_headless, service_ports};

/// How long resolvers may keep a record, in seconds: short, because endpoints come and go.
const TTL: u32 = 5;

/// What a name has to say about a type.
#[derive(Debug, PartialEq)]
pub(super) enum Lookup {
    /// Not the cluster's name: somebody else must be asked.
    NotOurs,
    /// The name does not exist.
    NoName,
    /// The name exists and has no such record.
    NoData,
    /// The records, and others that save the client a query.
    Found { answers: Vec<Record>, additionals: Vec<Record> },
    /// Another name, outside the cluster.
    Alias { record: Box<Record>, target: Name },
}

/// The cluster's domain.
pub(super) struct Zone {
    origin: Name,
}

/// What the labels in front of the domain mean.
#[derive(Debug, PartialEq, Eq)]
enum Subject<'a> {
    Apex,
    Version,
    /// A name that only leads to others: `svc`, `pod`, `<namespace>.svc`.
    Between {
        namespace: Option<&'a str>,
    },
    Service {
        namespace: &'a str,
        service: &'a str,
    },
    Host {
        namespace: &'a str,
        service: &'a str,
        host: &'a str,
    },
    Port {
        namespace: &'a str,
        service: &'a str,
        port: &'a str,
        protocol: &'a str,
    },
    Pod {
        address: &'a str,
    },
    Unknown,
}

impl Zone {
    /// `None` when the domain is not a DNS name.
    pub(super) fn new(domain: &str) -> Option<Self> {
        let origin = Name::from_ascii(domain.to_lowercase()).ok()?;
        let mut origin = origin;
        origin.set_fqdn(true);
        (!origin.is_root()).then_some(Zone { origin })
    }

    /// The zone's SOA record, which negative answers carry.
    pub(super) fn soa(&self) -> Record {
        let below = |label: &str| self.name(label).unwrap_or_else(|| self.origin.clone());
        let soa = SOA::new(below("ns.dns"), below("hostmaster"), 1, 7200, 1800, 86400, TTL);
        Record::from_rdata(self.origin.clone(), TTL, RData::SOA(soa))
    }

    /// Looks a name up.
    pub(super) fn lookup(&self, view: &View, name: &Name, wanted: RecordType) -> Lookup {
        let name = name.to_lowercase();
        if let Some(address) = reverse_address(&name) {
            return self.reverse(view, &name, address, wanted);
        }
        if !self.origin.zone_of(&name) {
            return Lookup::NotOurs;
        }
        let own = usize::from(name.num_labels() - self.origin.num_labels());
        let labels: Vec<String> =
            name.iter().take(own).map(|label| String::from_utf8_lossy(label).into_owned()).collect();
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        match subject(&labels) {
            Subject::Apex if wanted == RecordType::SOA => found(vec![self.soa()]),
            Subject::Apex => Lookup::NoData,
            Subject::Version if wanted == RecordType::TXT => {
                let text = RData::TXT(TXT::new(vec!["1.1.0".to_owned()]));
                found(vec![Record::from_rdata(name, TTL, text)])
            }
            Subject::Version => Lookup::NoData,
            Subject::Between { namespace: None } => Lookup::NoData,
            Subject::Between { namespace: Some(namespace) } if view.has_namespace(namespace) => {
                Lookup::NoData
            }
            Subject::Between { .. } | Subject::Unknown => Lookup::NoName,
            Subject::Pod { address } => pod(&name, address, wanted),
            Subject::Service { namespace, service } => match view.service(namespace, service) {
                None => Lookup::NoName,
                Some(service) => self.service(view, &name, &service, wanted),
            },
            Subject::Host { namespace, service, host } => match headless(view, namespace, service) {
                None => Lookup::NoName,
                Some(service) => host_records(view, &name, &service, host, wanted),
            },
            Subject::Port { namespace, service, port, protocol } => match view.service(namespace, service) {
                None => Lookup::NoName,
                Some(service) => self.port(view, &name, &service, (port, protocol), wanted),
            },
        }
    }

    fn service(&self, view: &View, name: &Name, service: &Service, wanted: RecordType) -> Lookup {
        if let Some(target) = external_name(service) {
            let Ok(mut target) = Name::from_ascii(target) else { return Lookup::NoData };
            target.set_fqdn(true);
            let alias = RData::CNAME(rdata::CNAME(target.clone()));
            let record = Record::from_rdata(name.clone(), TTL, alias);
            return match wanted {
                RecordType::A | RecordType::AAAA => Lookup::Alias { record: Box::new(record), target },
                RecordType::CNAME | RecordType::ANY => found(vec![record]),
                _ => Lookup::NoData,
            };
        }
        if wanted == RecordType::SRV {
            let ports = service_ports(service);
            return self.srv(view, name, service, &ports);
        }
        let addresses = match is_headless(service) {
            true => view.backends(service).into_iter().map(|backend| backend.address).collect(),
            false => cluster_addresses(service),
        };
        addresses_of(name, addresses, wanted)
    }

    fn port(
        &self,
        view: &View,
        name: &Name,
        service: &Service,
        (port, protocol): (&str, &str),
        wanted: RecordType,
    ) -> Lookup {
        let ports: Vec<_> = service_ports(service)
            .into_iter()
            .filter(|one| one.name == port && one.protocol == protocol)
            .collect();
        match (ports.is_empty(), wanted) {
            (true, _) => Lookup::NoName,
            (false, RecordType::SRV | RecordType::ANY) => self.srv(view, name, service, &ports),
            (false, _) => Lookup::NoData,
        }
    }

    /// One record for each port of a Service, or for each port of each of a headless one's endpoints.
    fn srv(&self, view: &View, name: &Name, service: &Service, ports: &[NamedPort]) -> Lookup {
        let Some(own) = self.service_name(service) else { return Lookup::NoData };
        let (mut answers, mut additionals) = (Vec::new(), Vec::new());
        let record = |port: u16, target: &Name| {
            Record::from_rdata(name.clone(), TTL, RData::SRV(SRV::new(0, 100, port, target.clone())))
        };
        if is_headless(service) {
            for backend in view.backends(service) {
                let Ok(target) = own.prepend_label(backend.hostname.as_bytes()) else { continue };
                let open = backend.ports.iter().filter(|open| {
                    ports.iter().any(|port| port.name == open.name && port.protocol == open.protocol)
                });
                answers.extend(open.map(|open| record(open.port, &target)));
                additionals.push(address_record(&target, backend.address));
            }
        } else {
            answers.extend(ports.iter().map(|port| record(port.port, &own)));
            additionals.extend(cluster_addresses(service).into_iter().map(|ip| address_record(&own, ip)));
        }
        if answers.is_empty() { Lookup::NoData } else { Lookup::Found { answers, additionals } }
    }

    fn reverse(&self, view: &View, name: &Name, address: IpAddr, wanted: RecordType) -> Lookup {
        let mut targets = Vec::new();
        if let Some(service) = view.service_at(address) {
            targets.extend(self.service_name(&service));
        }
        for (service, host) in view.headless_at(address) {
            let name = self.service_name(&service).and_then(|own| own.prepend_label(host.as_bytes()).ok());
            targets.extend(name);
        }
        match (targets.is_empty(), wanted) {
            (true, _) => Lookup::NotOurs,
            (false, RecordType::PTR | RecordType::ANY) => found(
                targets
                    .into_iter()
                    .map(|target| Record::from_rdata(name.clone(), TTL, RData::PTR(rdata::PTR(target))))
                    .collect(),
            ),
            (false, _) => Lookup::NoData,
        }
    }

    fn service_name(&self, service: &Service) -> Option<Name> {
        self.name(&format!("{}.{}.svc", service.name_any(), service.namespace()?))
    }

    fn name(&self, labels: &str) -> Option<Name> {
        Name::from_ascii(labels).ok()?.append_domain(&self.origin).ok()
    }
}

fn subject<'a>(labels: &[&'a str]) -> Subject<'a> {
    match *labels {
        [] => Subject::Apex,
        ["dns-version"] => Subject::Version,
        ["svc" | "pod"] => Subject::Between { namespace: None },
        [namespace, "svc" | "pod"] => Subject::Between { namespace: Some(namespace) },
        [address, _, "pod"] => Subject::Pod { address },
        [service, namespace, "svc"] => Subject::Service { namespace, service },
        [host, service, namespace, "svc"] => Subject::Host { namespace, service, host },
        [port, protocol, service, namespace, "svc"] => {
            match (port.strip_prefix('_'), protocol.strip_prefix('_')) {
                (Some(port), Some(protocol)) => Subject::Port { namespace, service, port, protocol },
                _ => Subject::Unknown,
            }
        }
        _ => Subject::Unknown,
    }
}

fn found(answers: Vec<Record>) -> Lookup {
    Lookup::Found { answers, additionals: Vec::new() }
}

fn headless(view: &View, namespace: &str, service: &str) -> Option<std::sync::Arc<Service>> {
    view.service(namespace, service).filter(|service| is_headless(service))
}

fn host_records(view: &View, name: &Name, service: &Service, host: &str, wanted: RecordType) -> Lookup {
    let same = |backend: &Backend| backend.hostname.eq_ignore_ascii_case(host);
    let addresses: Vec<_> =
        view.backends(service).into_iter().filter(same).map(|backend| backend.address).collect();
    if addresses.is_empty() { Lookup::NoName } else { addresses_of(name, addresses, wanted) }
}

/// `10-42-0-7.<namespace>.pod`: any address, as upstream's default does without looking for the pod.
fn pod(name: &Name, label: &str, wanted: RecordType) -> Lookup {
    let v4 = label.replace('-', ".").parse::<Ipv4Addr>().map(IpAddr::V4);
    match v4.or_else(|_| label.replace('-', ":").parse()) {
        Ok(address) => addresses_of(name, vec![address], wanted),
        Err(_) => Lookup::NoName,
    }
}

fn external_name(service: &Service) -> Option<&str> {
    let spec = service.spec.as_ref()?;
    (spec.type_.as_deref() == Some("ExternalName")).then_some(spec.external_name.as_deref())?
}

fn addresses_of(name: &Name, addresses: Vec<IpAddr>, wanted: RecordType) -> Lookup {
    let fits = |address: &IpAddr| match wanted {
        RecordType::A => address.is_ipv4(),
        RecordType::AAAA => address.is_ipv6(),
        RecordType::ANY => true,
        _ => false,
    };
    let answers: Vec<_> =
        addresses.into_iter().filter(fits).map(|address| address_record(name, address)).collect();
    if answers.is_empty() { Lookup::NoData } else { found(answers) }
}

fn address_record(name: &Name, address: IpAddr) -> Record {
    let data = match address {
        IpAddr::V4(v4) => RData::A(v4.into()),
        IpAddr::V6(v6) => RData::AAAA(v6.into()),
    };
    Record::from_rdata(name.clone(), TTL, data)
}

/// The address that a name below `in-addr.arpa` or `ip6.arpa` stands for.
fn reverse_address(name: &Name) -> Option<IpAddr> {
    let labels: Vec<&str> = name.iter().map(|label| std::str::from_utf8(label).unwrap_or("?")).collect();
    match labels.as_slice() {
        [d, c, b, a, "in-addr", "arpa"] => format!("{a}.{b}.{c}.{d}").parse().ok(),
        [nibbles @ .., "ip6", "arpa"] if nibbles.len() == 32 => {
            let digits: String = nibbles.iter().rev().copied().collect();
            let bits = u128::from_str_radix(&digits, 16).ok()?;
            Some(IpAddr::V6(bits.into()))
        }
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests;

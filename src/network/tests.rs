//! Setting up and tearing down, on a machine in memory.

use super::*;
use crate::host::fake::{FakeHost, FakeSysctls};

fn machine() -> FakeHost {
    let sysctls =
        FakeSysctls::with(&[("net/ipv4/ip_forward", "0"), ("net/ipv4/conf/all/route_localnet", "0")]);
    FakeHost { sysctls: sysctls.into(), ..FakeHost::default() }
}

fn config() -> NetworkConfig {
    NetworkConfig { cluster_cidrs: vec!["10.42.0.0/16".into()], dns: "10.43.0.10".parse().unwrap() }
}

#[tokio::test]
async fn setup_may_be_repeated_and_teardown_removes_it_all() {
    let fake = machine();
    let host = fake.host();
    for _ in 0..2 {
        setup(&config(), &host).await.unwrap();
    }
    assert_eq!(host.sysctls.get("net/ipv4/ip_forward").unwrap(), "1");
    assert_eq!(fake.firewall.chain("filter", "KUBE-LITE-FORWARD").unwrap().len(), 2);
    assert_eq!(fake.firewall.chain("filter", "FORWARD").unwrap().len(), 1);
    assert_eq!(fake.firewall.chain("nat", "POSTROUTING").unwrap().len(), 1);
    let addresses = host.netlink.addresses().await.unwrap();
    assert_eq!((addresses.len(), addresses[0].ip, addresses[0].prefix), (1, config().dns, 32));
    for _ in 0..2 {
        teardown(&config(), &host).await.unwrap();
    }
    assert_eq!(fake.firewall.chain("filter", "KUBE-LITE-FORWARD"), None);
    assert!(fake.firewall.chain("nat", "POSTROUTING").unwrap().is_empty());
    assert!(host.netlink.addresses().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_kernel_that_cannot_forward_is_an_error() {
    let error = setup(&config(), &FakeHost::default().host()).await.unwrap_err();
    assert_eq!(error.to_string(), "set kernel setting net/ipv4/ip_forward to 1");
}

#[tokio::test]
async fn the_uplink_is_the_wanted_address_or_what_is_found() {
    let fake = machine();
    let host = fake.host();
    assert_eq!(uplink(&host, None).await.unwrap().interface, "lo");
    let link = fake.netlink.add_link("eth0", None);
    host.netlink.add_address(link, "192.168.0.2".parse().unwrap(), 24).await.unwrap();
    let other = fake.netlink.add_link("eth1", None);
    host.netlink.add_address(other, "192.168.9.2".parse().unwrap(), 24).await.unwrap();
    assert_eq!(uplink(&host, None).await.unwrap().interface, "eth0");
    let wanted = uplink(&host, Some("192.168.9.2".parse().unwrap())).await.unwrap();
    assert_eq!((wanted.interface.as_str(), wanted.prefix), ("eth1", 24));
    let translated = uplink(&host, Some("203.0.113.9".parse().unwrap())).await.unwrap();
    assert_eq!((translated.interface.as_str(), translated.ip.to_string().as_str()), ("eth0", "203.0.113.9"));
}

#[tokio::test]
async fn services_get_a_route_only_where_nothing_leads_to_them() {
    let fake = machine();
    let host = fake.host();
    let link = fake.netlink.add_link("eth0", None);
    let uplink = Uplink { ip: "192.0.2.2".parse().unwrap(), prefix: 24, interface: "eth0".into(), mtu: 1500 };
    service_route(&host, &uplink, "10.43.0.0/16").await.unwrap();
    let routes = host.netlink.routes().await.unwrap();
    assert_eq!((routes.len(), routes[0].link, routes[0].prefix), (1, link, 16));
    host.netlink.delete_route(routes[0]).await.unwrap();
    let default = Route { destination: "0.0.0.0".parse().unwrap(), prefix: 0, ..routes[0] };
    host.netlink.replace_route(default).await.unwrap();
    service_route(&host, &uplink, "10.43.0.0/16").await.unwrap();
    assert_eq!(host.netlink.routes().await.unwrap().len(), 1, "the default route is enough");
}

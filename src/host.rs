//! The only room that touches the machine: processes, mounts, cgroups, netlink, iptables. Traits, real and fake.

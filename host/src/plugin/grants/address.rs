//! Which addresses a plugin's connection may reach.
//!
//! A name in a grant says nothing about the address that a resolver gives for it. Whoever answers for the name could
//! point a request at this machine, its network or its cloud's metadata, so every address is classed before it is
//! dialled. Registries: IANA special-purpose addresses for IPv4 and IPv6 (RFC 6890 and its successors).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What an address leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AddressClass {
    /// Anywhere on the internet.
    Public,
    /// A site's own network: RFC 1918, unique local IPv6, shared addresses of carriers (RFC 6598).
    Private,
    /// The link this machine is on.
    LinkLocal,
    /// A cloud's metadata service, which hands out credentials.
    Metadata,
    /// This machine.
    Loopback,
    /// IPv6 that stands for an IPv4 address: mapped, compatible, NAT64, 6to4, Teredo, ISATAP.
    Embedded,
    /// Set aside for documentation, benchmarks, protocols or the future.
    Reserved,
    /// Unspecified, multicast or broadcast: no single machine.
    Nowhere,
}

impl AddressClass {
    /// With its article, for messages.
    pub fn describe(self) -> &'static str {
        match self {
            Self::Public => "a public address",
            Self::Private => "a private address",
            Self::LinkLocal => "a link-local address",
            Self::Metadata => "a cloud's metadata service",
            Self::Loopback => "this machine itself",
            Self::Embedded => "an IPv4 address inside IPv6",
            Self::Reserved => "a reserved address",
            Self::Nowhere => "no machine's address",
        }
    }
}

/// Where clouds answer for their machines, beside 169.254.169.254: Azure, Alibaba, Oracle.
const METADATA_V4: [Ipv4Addr; 5] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(192, 0, 0, 192),
    // Tasks and Pods of AWS; the /24 holds more of the kind, see below.
    Ipv4Addr::new(169, 254, 170, 2),
];

/// The class of an address.
pub fn address_class(address: IpAddr) -> AddressClass {
    match address {
        IpAddr::V4(address) => class_v4(address),
        IpAddr::V6(address) => class_v6(address),
    }
}

fn class_v4(address: Ipv4Addr) -> AddressClass {
    let octets = address.octets();
    if METADATA_V4.contains(&address) || octets.starts_with(&[169, 254, 169]) || octets.starts_with(&[169, 254, 170]) {
        return AddressClass::Metadata;
    }
    match octets {
        // "This network": Linux dials 0.0.0.0 as itself.
        [0, ..] | [224..=239, ..] | [255, 255, 255, 255] => AddressClass::Nowhere,
        [127, ..] => AddressClass::Loopback,
        [169, 254, ..] => AddressClass::LinkLocal,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => AddressClass::Private,
        // Protocol assignments, three documentation nets, 6to4 relays, AS112 twice, benchmarks, the future.
        [192, 0, 0 | 2, _] | [198, 51, 100, _] | [203, 0, 113, _] => AddressClass::Reserved,
        [192, 88, 99, _] | [192, 31, 196, _] | [192, 175, 48, _] => AddressClass::Reserved,
        [198, 18..=19, ..] | [240..=255, ..] => AddressClass::Reserved,
        _ => AddressClass::Public,
    }
}

fn class_v6(address: Ipv6Addr) -> AddressClass {
    let segments = address.segments();
    match segments {
        [0, 0, 0, 0, 0, 0, 0, 0] | [0xff00..=0xffff, ..] => AddressClass::Nowhere,
        [0, 0, 0, 0, 0, 0, 0, 1] => AddressClass::Loopback,
        // Compatible, mapped, translated (RFC 2765), NAT64 (RFC 6052, RFC 8215), 6to4 (RFC 3056), Teredo (RFC 4380).
        [0, 0, 0, 0, 0, 0, ..] | [0, 0, 0, 0, 0, 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] => AddressClass::Embedded,
        [0x64, 0xff9b, 0, 0, 0, 0, ..] | [0x64, 0xff9b, 1, ..] | [0x2002, ..] | [0x2001, 0, ..] => {
            AddressClass::Embedded
        }
        // ISATAP (RFC 5214) marks its interface identifiers in any prefix.
        [_, _, _, _, 0 | 0x200, 0x5efe, ..] => AddressClass::Embedded,
        // AWS, Google.
        [0xfd00, 0xec2, ..] | [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254] => AddressClass::Metadata,
        // Metadata of OpenStack, and of whoever writes 169.254.169.254 so.
        [0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe] => AddressClass::Metadata,
        [0xfe80..=0xfebf, ..] => AddressClass::LinkLocal,
        // Unique local; site-local, long deprecated, routes like it where it is still in use.
        [0xfc00..=0xfdff, ..] | [0xfec0..=0xfeff, ..] => AddressClass::Private,
        // Documentation twice, protocol assignments with benchmarks and ORCHID, segment routing.
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] | [0x2001, 1..=0x1ff, ..] | [0x5f00, ..] => {
            AddressClass::Reserved
        }
        // Global unicast; nothing else was given out.
        [0x2000..=0x3fff, ..] => AddressClass::Public,
        _ => AddressClass::Reserved,
    }
}

/// What a grant says about addresses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AddressScope {
    /// Link-local addresses, and metadata services.
    pub link_local: bool,
    /// Private addresses.
    pub private: bool,
    /// The environment's proxy may look the name up, and its rules count in the place of these. The operator's word: a
    /// manifest cannot know a site's proxy and need not ask.
    pub proxy: bool,
}

impl AddressScope {
    /// Whether everything that the other one allows is allowed, too.
    pub fn covers(self, other: Self) -> bool {
        self.link_local >= other.link_local && self.private >= other.private && self.proxy >= other.proxy
    }

    /// Whether an address of this class may be dialled for a name.
    pub fn allows(self, class: AddressClass) -> bool {
        match class {
            AddressClass::Public => true,
            AddressClass::Private => self.private,
            AddressClass::LinkLocal | AddressClass::Metadata => self.link_local,
            AddressClass::Loopback | AddressClass::Embedded | AddressClass::Reserved | AddressClass::Nowhere => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_special_address_has_its_class() {
        use AddressClass::{Embedded, LinkLocal, Loopback, Metadata, Nowhere, Private, Public, Reserved};
        for (class, addresses) in [
            (Public, "1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0"),
            (Public, "169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 192.167.255.255 192.169.0.0 192.0.1.0"),
            (Public, "192.0.3.0 198.17.255.255 198.20.0.0 223.255.255.255 168.63.129.15 203.0.112.255 198.51.101.0"),
            (Private, "10.0.0.0 10.255.255.255 172.16.0.0 172.31.255.255 192.168.0.0 192.168.255.255"),
            (Private, "100.64.0.0 100.127.255.255 100.100.100.199"),
            (LinkLocal, "169.254.0.1 169.254.168.255 169.254.171.0 169.254.255.255"),
            (Metadata, "169.254.169.254 169.254.169.253 169.254.169.123 169.254.170.2 169.254.170.23"),
            (Metadata, "168.63.129.16 100.100.100.200 192.0.0.192"),
            (Loopback, "127.0.0.0 127.0.0.1 127.0.0.53 127.255.255.255"),
            (Reserved, "192.0.0.1 192.0.2.1 198.51.100.7 203.0.113.9 192.88.99.1 192.31.196.1 192.175.48.1"),
            (Reserved, "198.18.0.0 198.19.255.255 240.0.0.0 255.255.255.254"),
            (Nowhere, "0.0.0.0 0.1.2.3 224.0.0.1 239.255.255.255 255.255.255.255"),
            (Public, "2606:4700::1111 2001:4860:4860::8888 2a00:1450::1 2000::1 2001:200::1 2003::1 3ffe::1"),
            (Private, "fc00::1 fd00::1 fdff:ffff::1 fec0::1 fd00:ec1::254 fd20:ce::253"),
            (LinkLocal, "fe80::1 fe80::a9fe:a9fd febf::1"),
            (Metadata, "fd00:ec2::254 fd00:ec2::23 fd20:ce::254 fe80::a9fe:a9fe"),
            (Loopback, "::1"),
            (Embedded, "::ffff:127.0.0.1 ::ffff:8.8.8.8 ::ffff:169.254.169.254 ::127.0.0.1 ::8.8.8.8 ::2"),
            (Embedded, "::ffff:0:127.0.0.1 64:ff9b::a9fe:a9fe 64:ff9b::8.8.8.8 64:ff9b:1::7f00:1 64:ff9b:1:ffff::1"),
            (Embedded, "2002:7f00:1:: 2002:a9fe:a9fe::1 2001::1 2001:0:4136:e378::1 fe80::5efe:7f00:1"),
            (Embedded, "2a00::200:5efe:a00:1"),
            (Reserved, "2001:db8::1 3fff::1 3fff:fff::1 2001:2::1 2001:10::1 2001:20::1 5f00::1 100::1 4000::1"),
            (Reserved, "64:ff9b:2::1 64:ff9a::1 fe00::1"),
            (Nowhere, ":: ff02::1 ff00:: ff0e::1"),
        ] {
            for address in addresses.split(' ') {
                assert_eq!(address_class(address.parse().unwrap()), class, "{address}");
            }
        }
    }

    #[test]
    fn a_flag_opens_its_own_class_only() {
        use AddressClass::{Embedded, LinkLocal, Loopback, Metadata, Nowhere, Private, Public, Reserved};
        let open = |link_local, private| {
            let scope = AddressScope { link_local, private, proxy: true };
            let all = [Public, Private, LinkLocal, Metadata, Loopback, Embedded, Reserved, Nowhere];
            all.into_iter().filter(|class| scope.allows(*class)).collect::<Vec<_>>()
        };
        assert_eq!(open(false, false), [Public]);
        assert_eq!(open(false, true), [Public, Private]);
        assert_eq!(open(true, false), [Public, LinkLocal, Metadata]);
        assert_eq!(open(true, true), [Public, Private, LinkLocal, Metadata]);
    }
}

//! Which subnet a network gets, and which address a container.
//!
//! Pure: the caller says which subnets the host already uses. Rules and texts are Docker's (moby
//! `api/types/network/ipam.go`, `libnetwork/ipamutils`): a pool that the user names must not overlap one of our
//! own; a pool that we choose must not overlap anything the host routes either.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::error::NetError;
use super::spec::{NetworkSpec, PoolSpec};

/// An address block: `172.18.0.0/16`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Subnet {
    pub address: IpAddr,
    pub prefix: u8,
}

impl Subnet {
    /// Returns the block around `address`; bits behind the prefix stay as given.
    pub fn new(address: IpAddr, prefix: u8) -> Self {
        Self { address, prefix }
    }

    /// Reads `address/prefix`.
    pub fn parse(text: &str) -> Option<Self> {
        let (address, prefix) = text.split_once('/')?;
        let address: IpAddr = address.parse().ok()?;
        if prefix.starts_with('+') || (prefix.len() > 1 && prefix.starts_with('0')) {
            return None;
        }
        let prefix: u8 = prefix.parse().ok()?;
        (prefix <= width(address)).then_some(Self { address, prefix })
    }

    /// Returns the block with the bits behind its prefix cleared.
    pub fn masked(self) -> Self {
        let kept = number(self.address) & !self.host_bits();
        Self {
            address: address(kept, self.address.is_ipv4()),
            prefix: self.prefix,
        }
    }

    /// Returns whether the address lies in the block.
    pub fn contains(self, other: IpAddr) -> bool {
        self.address.is_ipv4() == other.is_ipv4()
            && number(other) & !self.host_bits() == number(self.address) & !self.host_bits()
    }

    /// Returns whether the blocks have an address in common.
    pub fn overlaps(self, other: Self) -> bool {
        let wider = if self.prefix < other.prefix { self } else { other };
        let narrower = if self.prefix < other.prefix { other } else { self };
        wider.contains(narrower.address)
    }

    fn host_bits(self) -> u128 {
        let bits = u32::from(width(self.address) - self.prefix);
        u128::MAX.checked_shr(128 - bits).unwrap_or(0)
    }

    fn first(self) -> u128 {
        number(self.masked().address)
    }

    fn last(self) -> u128 {
        self.first() | self.host_bits()
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.prefix)
    }
}

impl fmt::Debug for Subnet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> Self {
        subnet.to_string()
    }
}

impl TryFrom<String> for Subnet {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text).ok_or_else(|| format!("invalid CIDR block notation: {text}"))
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(address.to_bits()),
        IpAddr::V6(address) => address.to_bits(),
    }
}

fn address(number: u128, is_ipv4: bool) -> IpAddr {
    if is_ipv4 {
        IpAddr::V4(Ipv4Addr::from_bits(number as u32))
    } else {
        IpAddr::V6(Ipv6Addr::from_bits(number))
    }
}

/// An address pool of a network that exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pool {
    pub subnet: Subnet,
    /// Where containers without a wish get their addresses from; `None`: anywhere in the subnet.
    pub range: Option<Subnet>,
    /// The bridge's own address, and the containers' way out.
    pub gateway: IpAddr,
    pub auxiliary: BTreeMap<String, IpAddr>,
    /// Whether we chose the subnet. Containers may not choose addresses in such a one: it can differ next time.
    pub automatic: bool,
}

impl Pool {
    fn reserved(&self) -> impl Iterator<Item = IpAddr> {
        std::iter::once(self.gateway).chain(self.auxiliary.values().copied())
    }

    fn is_ipv4(&self) -> bool {
        self.subnet.address.is_ipv4()
    }

    /// The first and last address that a container may have. The network's own and the broadcast address are no
    /// container's, unless the subnet is too small to have any (/31, /32: RFC 3021).
    fn bounds(&self, of: Subnet) -> (u128, u128) {
        let (mut first, mut last) = (of.first(), of.last());
        let width = width(self.subnet.address);
        if self.subnet.prefix + 1 < width {
            first = first.max(self.subnet.first() + 1);
            if self.is_ipv4() {
                last = last.min(self.subnet.last() - 1);
            }
        }
        (first, last)
    }
}

/// Chooses a new network's pools, or says all that is wrong with those it asks for.
///
/// `ours` are the subnets of this engine's networks, `foreign` what the host routes elsewhere.
pub fn choose_pools(
    spec: &NetworkSpec,
    ours: &[Subnet],
    foreign: &[Subnet],
    instance: &str,
) -> Result<Vec<Pool>, NetError> {
    let problems: Vec<String> = spec
        .pools
        .iter()
        .flat_map(|pool| problems_of(pool, spec.enable_ipv6))
        .collect();
    if !problems.is_empty() {
        return Err(NetError::InvalidNetwork(problems));
    }

    let mut pools = Vec::new();
    for wish in &spec.pools {
        let Some(subnet) = wish.subnet.as_deref().filter(|text| !text.is_empty()) else {
            continue;
        };
        let subnet = Subnet::parse(subnet).expect("checked above");
        if (subnet.address.is_ipv6() && !spec.enable_ipv6) || (subnet.address.is_ipv4() && !spec.has_ipv4()) {
            continue;
        }
        let earlier = pools.iter().map(|pool: &Pool| pool.subnet);
        if ours.iter().copied().chain(earlier).any(|other| other.overlaps(subnet)) {
            return Err(NetError::PoolOverlap);
        }
        pools.push(pool_of(subnet, wish)?);
    }

    let has = |pools: &[Pool], ipv4: bool| pools.iter().any(|pool| pool.is_ipv4() == ipv4);
    if spec.has_ipv4() && !has(&pools, true) {
        let taken: Vec<Subnet> = ours.iter().chain(foreign).copied().collect();
        let subnet = default_ipv4_pools()
            .find(|candidate| !taken.iter().any(|other| other.prefix > 0 && other.overlaps(*candidate)))
            .ok_or(NetError::PoolsExhausted)?;
        pools.insert(0, automatic(subnet));
    }
    if spec.enable_ipv6 && !has(&pools, false) {
        let taken: Vec<Subnet> = ours.iter().chain(foreign).copied().collect();
        let subnet = default_ipv6_pools(instance)
            .find(|candidate| !taken.iter().any(|other| other.prefix > 0 && other.overlaps(*candidate)))
            .ok_or(NetError::PoolsExhausted)?;
        pools.push(automatic(subnet));
    }
    Ok(pools)
}

fn automatic(subnet: Subnet) -> Pool {
    Pool {
        subnet,
        range: None,
        gateway: address(subnet.first() + 1, subnet.address.is_ipv4()),
        auxiliary: BTreeMap::new(),
        automatic: true,
    }
}

fn pool_of(subnet: Subnet, wish: &PoolSpec) -> Result<Pool, NetError> {
    let range = wish.ip_range.as_deref().and_then(Subnet::parse);
    let gateway: Option<IpAddr> = wish.gateway.as_deref().and_then(|text| text.parse().ok());
    let mut pool = Pool {
        subnet,
        range,
        gateway: subnet.address,
        auxiliary: BTreeMap::new(),
        automatic: false,
    };
    let wanted: BTreeMap<&String, IpAddr> = wish
        .aux_addresses
        .iter()
        .filter_map(|(name, text)| Some((name, text.parse().ok()?)))
        .collect();
    pool.gateway = match gateway {
        Some(gateway) => gateway,
        // The first address that nothing else is meant for: of the range, if there is one.
        None => {
            let (first, last) = pool.bounds(range.unwrap_or(subnet));
            (first..=last)
                .map(|at| address(at, subnet.address.is_ipv4()))
                .find(|candidate| !wanted.values().any(|taken| taken == candidate))
                .ok_or_else(|| NetError::GatewayTaken {
                    address: subnet.to_string(),
                })?
        }
    };
    let mut taken = BTreeSet::from([pool.gateway]);
    for (name, address) in wanted {
        if !taken.insert(address) {
            return Err(NetError::AuxiliaryTaken {
                name: name.clone(),
                address: address.to_string(),
            });
        }
        pool.auxiliary.insert(name.clone(), address);
    }
    Ok(pool)
}

/// Docker's default address pools: 14 blocks of /16, then 16 of /20.
fn default_ipv4_pools() -> impl Iterator<Item = Subnet> {
    let large = (17..=31).map(|second| Subnet::new(Ipv4Addr::new(172, second, 0, 0).into(), 16));
    let small = (0..=15).map(|third| Subnet::new(Ipv4Addr::new(192, 168, third * 16, 0).into(), 20));
    large.chain(small)
}

/// The blocks of one local /48 (RFC 4193); its 40 random bits follow from the engine, so they stay the same.
fn default_ipv6_pools(instance: &str) -> impl Iterator<Item = Subnet> {
    let hash = Sha256::digest(instance.as_bytes());
    let mut octets = [0; 16];
    octets[0] = 0xfd;
    octets[1..6].copy_from_slice(&hash[..5]);
    let base = u128::from_be_bytes(octets);
    (0..1u128 << 16).map(move |at| Subnet::new(address(base | at << 64, false), 64))
}

/// Everything that is wrong with a pool as it is written.
fn problems_of(pool: &PoolSpec, enable_ipv6: bool) -> Vec<String> {
    let Some(text) = pool.subnet.as_deref().filter(|text| !text.is_empty()) else {
        let has_rest = [&pool.ip_range, &pool.gateway]
            .into_iter()
            .any(|field| field.as_deref().is_some_and(|text| !text.is_empty()));
        return if has_rest {
            vec!["invalid subnet : invalid CIDR block notation".to_owned()]
        } else {
            Vec::new()
        };
    };
    let Some(subnet) = Subnet::parse(text) else {
        return vec![format!("invalid subnet {text}: invalid CIDR block notation")];
    };
    if subnet.address.is_ipv6() && !enable_ipv6 {
        return Vec::new();
    }
    let mut problems = Vec::new();
    if subnet != subnet.masked() {
        problems.push(format!("invalid subnet {subnet}: it should be {}", subnet.masked()));
    }
    if let Some(range) = pool.ip_range.as_deref().filter(|text| !text.is_empty()) {
        problems.extend(problems_of_range(range, subnet));
    }
    if let Some(gateway) = pool.gateway.as_deref().filter(|text| !text.is_empty())
        && let Some(problem) = problem_of_address(gateway, subnet)
    {
        problems.push(format!("invalid gateway {gateway}: {problem}"));
    }
    for (name, text) in &pool.aux_addresses {
        if let Some(problem) = problem_of_address(text, subnet) {
            problems.push(format!("invalid auxiliary address {name}: {problem}"));
        }
    }
    problems
}

fn problems_of_range(text: &str, subnet: Subnet) -> Vec<String> {
    let Some(range) = Subnet::parse(text) else {
        return vec![format!("invalid ip-range {text}: invalid CIDR block notation")];
    };
    if range.address.is_ipv4() != subnet.address.is_ipv4() {
        let family = family(subnet.address);
        return vec![format!("invalid ip-range {text}: parent subnet is an {family} block")];
    }
    let mut problems = Vec::new();
    if range.prefix < subnet.prefix {
        problems.push(format!(
            "invalid ip-range {text}: CIDR block is bigger than its parent subnet {subnet}"
        ));
    }
    if range != range.masked() {
        problems.push(format!("invalid ip-range {range}: it should be {}", range.masked()));
    }
    if !subnet.overlaps(range) {
        problems.push(format!(
            "invalid ip-range {text}: parent subnet {subnet} doesn't contain ip-range"
        ));
    }
    problems
}

fn problem_of_address(text: &str, subnet: Subnet) -> Option<String> {
    let Ok(address) = text.parse::<IpAddr>() else {
        return Some("invalid address".to_owned());
    };
    if address.is_ipv4() != subnet.address.is_ipv4() {
        return Some(format!("parent subnet is an {} block", family(subnet.address)));
    }
    (!subnet.contains(address)).then(|| format!("parent subnet {subnet} doesn't contain this address"))
}

fn family(address: IpAddr) -> &'static str {
    if address.is_ipv4() { "IPv4" } else { "IPv6" }
}

/// The addresses of one network that are in use.
#[derive(Debug, Default)]
pub struct Leases {
    taken: BTreeSet<IpAddr>,
}

impl Leases {
    /// Returns the leases of a network without containers.
    pub fn new(pools: &[Pool]) -> Self {
        Self {
            taken: pools.iter().flat_map(Pool::reserved).collect(),
        }
    }

    /// Takes the lowest free address of a family, or says that there is none.
    pub fn allocate(&mut self, pools: &[Pool], ipv4: bool) -> Option<(IpAddr, u8)> {
        for pool in pools.iter().filter(|pool| pool.is_ipv4() == ipv4) {
            let (first, last) = pool.bounds(pool.range.unwrap_or(pool.subnet));
            if first > last {
                continue;
            }
            let mut candidate = first;
            for taken in self.taken.range(address(first, ipv4)..=address(last, ipv4)) {
                if number(*taken) != candidate {
                    break;
                }
                candidate += 1;
            }
            if candidate <= last {
                let found = address(candidate, ipv4);
                self.taken.insert(found);
                return Some((found, pool.subnet.prefix));
            }
        }
        None
    }

    /// Takes the address that a container asks for.
    pub fn claim(&mut self, pools: &[Pool], wanted: IpAddr) -> Result<u8, NetError> {
        let Some(pool) = pools.iter().find(|pool| pool.subnet.contains(wanted)) else {
            return Err(NetError::AddressTaken);
        };
        let (first, last) = pool.bounds(pool.subnet);
        if !(first..=last).contains(&number(wanted)) || !self.taken.insert(wanted) {
            return Err(NetError::AddressTaken);
        }
        Ok(pool.subnet.prefix)
    }

    /// Marks an address that a running container has had since before this engine started.
    pub fn adopt(&mut self, address: IpAddr) {
        self.taken.insert(address);
    }

    /// Gives an address back.
    pub fn release(&mut self, address: IpAddr) {
        self.taken.remove(&address);
    }
}

/// Everything that is wrong with the address an attachment asks for.
pub fn problems_of_wish(text: &str, ipv4: bool, pools: &[Pool]) -> Vec<String> {
    let mut problems = Vec::new();
    let family_name = if ipv4 { "IPv4" } else { "IPv6" };
    let address = text.parse::<IpAddr>().ok().filter(|address| address.is_ipv4() == ipv4);
    if address.is_none() {
        problems.push(format!("invalid {family_name} address: {text}"));
    }
    let mut configured = pools
        .iter()
        .filter(|pool| !pool.automatic && pool.is_ipv4() == ipv4)
        .peekable();
    if configured.peek().is_none() {
        problems.push(
            "user specified IP address is supported only when connecting to networks with user configured subnets"
                .to_owned(),
        );
    } else if !configured.any(|pool| address.is_some_and(|address| pool.subnet.contains(address))) {
        problems.push(format!(
            "no configured subnet or ip-range contain the IP address {text}"
        ));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn subnet(text: &str) -> Subnet {
        Subnet::parse(text).unwrap()
    }

    fn spec(pools: &[PoolSpec]) -> NetworkSpec {
        NetworkSpec {
            pools: pools.to_vec(),
            ..NetworkSpec::default()
        }
    }

    fn pool(subnet: &str, range: &str, gateway: &str, auxiliary: &[(&str, &str)]) -> PoolSpec {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        PoolSpec {
            subnet: text(subnet),
            ip_range: text(range),
            gateway: text(gateway),
            aux_addresses: auxiliary
                .iter()
                .map(|(name, address)| ((*name).to_owned(), (*address).to_owned()))
                .collect(),
        }
    }

    fn chosen(pools: &[PoolSpec], ours: &[&str], foreign: &[&str]) -> Result<Vec<Pool>, NetError> {
        let subnets = |texts: &[&str]| texts.iter().map(|text| subnet(text)).collect::<Vec<_>>();
        choose_pools(&spec(pools), &subnets(ours), &subnets(foreign), "0123abcd")
    }

    #[test]
    fn blocks_know_what_they_contain() {
        assert!(subnet("10.0.0.0/8").overlaps(subnet("10.200.3.0/24")));
        assert!(subnet("10.200.3.0/24").overlaps(subnet("10.0.0.0/8")));
        assert!(!subnet("10.0.0.0/24").overlaps(subnet("10.0.1.0/24")));
        assert!(subnet("0.0.0.0/0").contains("8.8.8.8".parse().unwrap()));
        assert!(!subnet("0.0.0.0/0").contains("::1".parse().unwrap()));
        assert!(subnet("::/0").overlaps(subnet("fd00::/64")));
        assert_eq!(subnet("10.1.2.3/20").masked(), subnet("10.1.0.0/20"));
        for wrong in [
            "",
            "10.0.0.0",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0.0/08",
            "10.0.0/8",
            "fd00::/129",
            "a/8",
        ] {
            assert_eq!(Subnet::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_chosen_pool_avoids_networks_and_the_hosts_routes() {
        let pools = chosen(&[], &[], &[]).unwrap();
        assert_eq!(pools[0].subnet, subnet("172.17.0.0/16"));
        assert_eq!(pools[0].gateway.to_string(), "172.17.0.1");
        let pools = chosen(
            &[],
            &["172.18.0.0/16"],
            &["0.0.0.0/0", "172.17.3.0/24", "172.16.0.0/30"],
        )
        .unwrap();
        assert_eq!(pools[0].subnet, subnet("172.19.0.0/16"));
        let pools = chosen(&[], &[], &["172.16.0.0/12"]).unwrap();
        assert_eq!(pools[0].subnet, subnet("192.168.0.0/20"));
        let error = chosen(&[], &["192.168.0.0/16"], &["172.16.0.0/12"]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "all predefined address pools have been fully subnetted"
        );
    }

    #[test]
    fn a_network_with_ipv6_gets_a_local_prefix_that_stays() {
        let wish = NetworkSpec {
            enable_ipv6: true,
            ..NetworkSpec::default()
        };
        let first = choose_pools(&wish, &[], &[], "0123abcd").unwrap();
        assert_eq!(first, choose_pools(&wish, &[], &[], "0123abcd").unwrap());
        assert_eq!(first[1].subnet.prefix, 64);
        assert!(first[1].subnet.to_string().starts_with("fd"));
        let second = choose_pools(&wish, &[first[1].subnet], &[], "0123abcd").unwrap();
        assert!(!second[1].subnet.overlaps(first[1].subnet));
    }

    #[test]
    fn wrong_pools_are_refused_in_dockers_words() {
        let table: &[(PoolSpec, &[&str], &str)] = &[
            (
                pool("10.77.0.0/25", "", "", &[]),
                &["10.77.0.0/24"],
                "invalid pool request: Pool overlaps with other one on this address space",
            ),
            (
                pool("10.78.0.1/24", "", "", &[]),
                &[],
                "invalid network config:\ninvalid subnet 10.78.0.1/24: it should be 10.78.0.0/24",
            ),
            (
                pool("10.78.0.0/33", "", "", &[]),
                &[],
                "invalid network config:\ninvalid subnet 10.78.0.0/33: invalid CIDR block notation",
            ),
            (
                pool("10.78.0.0/24", "", "10.79.0.1", &[]),
                &[],
                "invalid network config:\ninvalid gateway 10.79.0.1: parent subnet 10.78.0.0/24 doesn't contain this address",
            ),
            (
                pool("10.78.0.0/24", "", "nonsense", &[]),
                &[],
                "invalid network config:\ninvalid gateway nonsense: invalid address",
            ),
            (
                pool("10.78.0.0/24", "10.79.0.0/25", "", &[("a", "fd00::1")]),
                &[],
                "invalid network config:\ninvalid ip-range 10.79.0.0/25: parent subnet 10.78.0.0/24 doesn't contain \
                 ip-range\ninvalid auxiliary address a: parent subnet is an IPv4 block",
            ),
            (
                pool("10.78.0.0/24", "", "10.78.0.1", &[("a", "10.78.0.1")]),
                &[],
                "failed to allocate secondary ip address (a:10.78.0.1): Address already in use",
            ),
        ];
        for (pool, ours, text) in table {
            let error = chosen(std::slice::from_ref(pool), ours, &[]).unwrap_err();
            assert_eq!(error.to_string(), *text);
        }
    }

    #[test]
    fn the_gateway_steps_aside_for_an_auxiliary_address() {
        let pools = chosen(&[pool("10.78.0.0/24", "", "", &[("a", "10.78.0.1")])], &[], &[]).unwrap();
        assert_eq!(pools[0].gateway.to_string(), "10.78.0.2");
    }

    #[test]
    fn addresses_come_from_the_range_lowest_first() {
        let pools = chosen(&[pool("10.1.0.0/16", "10.1.5.0/30", "10.1.5.1", &[])], &[], &[]).unwrap();
        let mut leases = Leases::new(&pools);
        let mut next = || {
            leases
                .allocate(&pools, true)
                .map(|(address, prefix)| format!("{address}/{prefix}"))
        };
        assert_eq!(next().as_deref(), Some("10.1.5.0/16"));
        assert_eq!(next().as_deref(), Some("10.1.5.2/16"));
        assert_eq!(next().as_deref(), Some("10.1.5.3/16"));
        assert_eq!(next(), None);
        leases.release("10.1.5.2".parse().unwrap());
        assert_eq!(leases.allocate(&pools, true).unwrap().0.to_string(), "10.1.5.2");
    }

    #[test]
    fn a_small_network_has_as_many_containers_as_docker_gives_it() {
        let pools = chosen(&[pool("10.78.0.0/29", "", "", &[])], &[], &[]).unwrap();
        let mut leases = Leases::new(&pools);
        let mut count = 0;
        while leases.allocate(&pools, true).is_some() {
            count += 1;
        }
        assert_eq!(count, 5);
    }

    #[test]
    fn a_static_address_is_claimed_once() {
        let pools = chosen(&[pool("10.77.0.0/24", "", "", &[])], &[], &[]).unwrap();
        let mut leases = Leases::new(&pools);
        let mut claim = |text: &str| {
            leases
                .claim(&pools, text.parse().unwrap())
                .map_err(|error| error.to_string())
        };
        assert_eq!(claim("10.77.0.5"), Ok(24));
        for taken in ["10.77.0.5", "10.77.0.1", "10.77.0.0", "10.77.0.255"] {
            assert_eq!(claim(taken), Err("Address already in use".to_owned()), "{taken}");
        }
    }

    #[test]
    fn a_wish_outside_the_configured_subnets_is_refused_in_dockers_words() {
        let automatic = chosen(&[], &[], &[]).unwrap();
        let configured = chosen(&[pool("10.77.0.0/24", "", "", &[])], &[], &[]).unwrap();
        let only =
            "user specified IP address is supported only when connecting to networks with user configured subnets";
        assert_eq!(problems_of_wish("172.17.0.9", true, &automatic), [only]);
        assert_eq!(problems_of_wish("fd00::5", false, &configured), [only]);
        assert_eq!(
            problems_of_wish("10.99.0.9", true, &configured),
            ["no configured subnet or ip-range contain the IP address 10.99.0.9"]
        );
        assert_eq!(
            problems_of_wish("abc", true, &configured),
            [
                "invalid IPv4 address: abc",
                "no configured subnet or ip-range contain the IP address abc"
            ]
        );
        assert!(problems_of_wish("10.77.0.9", true, &configured).is_empty());
    }

    proptest! {
        #[test]
        fn no_address_is_given_out_twice(steps in proptest::collection::vec(any::<Option<u8>>(), 0..200)) {
            let pools = chosen(&[pool("10.9.0.0/26", "", "", &[("a", "10.9.0.7")])], &[], &[]).unwrap();
            let mut leases = Leases::new(&pools);
            let mut held: Vec<IpAddr> = Vec::new();
            for step in steps {
                match step {
                    Some(at) if !held.is_empty() => {
                        leases.release(held.swap_remove(usize::from(at) % held.len()));
                    }
                    _ => if let Some((address, _)) = leases.allocate(&pools, true) {
                        prop_assert!(!held.contains(&address));
                        prop_assert!(pools[0].subnet.contains(address) && address != pools[0].gateway);
                        held.push(address);
                    },
                }
            }
        }
    }
}

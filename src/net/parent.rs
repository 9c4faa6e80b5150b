//! Networks on an interface of the host: `macvlan`, where each container has a hardware address of its own there, and
//! `ipvlan`, where they share the host's.
//!
//! The host itself does not reach such containers by that interface; nobody forwards for them, and the gateway is
//! whoever is the gateway on that wire. A network without a parent gets one that leads nowhere.

use super::bridge;
use super::error::NetError;
use super::link::{self, Child, Index};
use super::spec::{Driver, NetworkSpec, NetworkState};
use super::worker::Host;

/// Returns what containers' interfaces are to be; `None` where they are ends of veth pairs. Refuses what no driver
/// knows, in moby's words.
pub fn child(spec: &NetworkSpec) -> Result<Option<Child>, NetError> {
    let option = |name: &str| spec.options.get(name).map_or("", String::as_str);
    let wrong = |what: &str, value: &str, default: &str| {
        let driver = spec.driver.name();
        NetError::InvalidNetwork(vec![format!(
            "requested {driver} {what} '{value}' is not valid, '{default}' is the {driver} driver default"
        )])
    };
    Ok(Some(match spec.driver {
        Driver::Macvlan => Child::Macvlan(match option("macvlan_mode") {
            "private" => 1,
            "vepa" => 2,
            "" | "bridge" => 4,
            "passthru" => 8,
            other => return Err(wrong("mode", other, "bridge mode")),
        }),
        Driver::Ipvlan => Child::Ipvlan {
            mode: match option("ipvlan_mode") {
                "" | "l2" => 0,
                "l3" => 1,
                "l3s" => 2,
                other => return Err(wrong("mode", other, "l2 mode")),
            },
            flags: match option("ipvlan_flag") {
                "" | "bridge" => 0,
                "private" => 1,
                "vepa" => 2,
                other => return Err(wrong("flag", other, "bridge")),
            },
        },
        Driver::Bridge | Driver::Host | Driver::Null => return Ok(None),
    }))
}

/// Returns the name of the interface that a network lies on, and whether it is the network's own.
pub fn name(spec: &NetworkSpec) -> (String, bool) {
    match spec.options.get("parent").filter(|name| !name.is_empty()) {
        Some(name) => (name.clone(), false),
        None => (format!("dm-{}", spec.id.get(..12).unwrap_or(&spec.id)), true),
    }
}

/// Finds the interface that a network lies on, and makes it if it is the network's own.
pub fn ensure(host: &mut Host, state: &NetworkState, name: &str) -> Result<Index, NetError> {
    let missing = || {
        NetError::InvalidNetwork(vec![format!(
            "parent interface {name} of network {} was not found on the host; `ip link` lists those that are there",
            state.spec.name
        )])
    };
    if let Some(found) = link::find(&mut host.route, name)? {
        return Ok(found.index);
    }
    if !state.owns_bridge {
        return Err(missing());
    }
    // A wire with two ends, as one end alone carries nothing; the other one is nobody's.
    let other = name.replacen("dm-", "dn-", 1);
    host.route
        .request(vec![link::create_wire(name, &other, bridge::mtu(state))])?;
    let found = link::find(&mut host.route, name)?.ok_or_else(missing)?;
    for end in [name, &other] {
        if let Some(end_found) = link::find(&mut host.route, end)? {
            host.route.request(vec![
                link::no_link_local(end_found.index, end),
                link::set_up(end_found.index, end),
            ])?;
        }
    }
    Ok(found.index)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(driver: Driver, options: &[(&str, &str)]) -> NetworkSpec {
        NetworkSpec {
            id: "0123456789abcdef".into(),
            driver,
            options: options
                .iter()
                .map(|(name, value)| ((*name).into(), (*value).into()))
                .collect(),
            ..NetworkSpec::default()
        }
    }

    #[test]
    fn options_choose_the_mode_and_nonsense_is_refused() {
        let of = |driver, options: &[(&str, &str)]| child(&spec(driver, options));
        assert_eq!(of(Driver::Bridge, &[]).unwrap(), None);
        assert_eq!(of(Driver::Macvlan, &[]).unwrap(), Some(Child::Macvlan(4)));
        let passthru = of(Driver::Macvlan, &[("macvlan_mode", "passthru")]);
        assert_eq!(passthru.unwrap(), Some(Child::Macvlan(8)));
        let l3 = of(Driver::Ipvlan, &[("ipvlan_mode", "l3"), ("ipvlan_flag", "vepa")]);
        assert_eq!(l3.unwrap(), Some(Child::Ipvlan { mode: 1, flags: 2 }));
        let error = of(Driver::Macvlan, &[("macvlan_mode", "odd")]).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("requested macvlan mode 'odd' is not valid, 'bridge mode' is the macvlan driver default"),
            "{error}"
        );
        assert!(of(Driver::Ipvlan, &[("ipvlan_flag", "odd")]).is_err());
    }

    #[test]
    fn a_network_without_a_parent_has_one_of_its_own() {
        assert_eq!(
            name(&spec(Driver::Macvlan, &[("parent", "eth1")])),
            ("eth1".into(), false)
        );
        assert_eq!(name(&spec(Driver::Macvlan, &[])), ("dm-0123456789ab".into(), true));
    }
}

//! Networks of containers: bridges, addresses, firewall, port proxy, DNS.

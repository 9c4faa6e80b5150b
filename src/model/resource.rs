//! Resources of a project that are not services: networks, volumes, secrets, configs, models.

use super::{Extensions, Labels, Mapping};

/// Where the value of a secret's or config's variable is kept in a tree, which is checked again when it is part of
/// another: `content` would be a second source.
pub const FROM_ENVIRONMENT: &str = "x-#value";

object! {
    /// A network.
    pub struct Network {
        name: String = Key::new("name"),
        driver: String = Key::new("driver"),
        driver_opts: Mapping = Key::new("driver_opts"),
        ipam: Ipam = Key::new("ipam").kept_in_json(),
        external: bool = Key::new("external"),
        internal: bool = Key::new("internal"),
        attachable: bool = Key::new("attachable"),
        labels: Labels = Key::new("labels"),
        enable_ipv4: Option<bool> = Key::new("enable_ipv4"),
        enable_ipv6: Option<bool> = Key::new("enable_ipv6"),
        extensions: Extensions = Key::EXTENSIONS,
    }
}

object! {
    /// Which addresses a network has.
    pub struct Ipam {
        driver: String = Key::new("driver"),
        config: Vec<IpamPool> = Key::new("config"),
        /// Read by docker compose from version 5 on; left out of output, which is that of version 2.
        options: Mapping = Key::new("options").hidden(),
        extensions: Extensions = Key::EXTENSIONS,
    }
}

object! {
    /// A range of addresses.
    pub struct IpamPool {
        subnet: String = Key::new("subnet"),
        gateway: String = Key::new("gateway"),
        ip_range: String = Key::new("ip_range"),
        aux_addresses: Mapping = Key::new("aux_addresses"),
    }
}

object! {
    /// A named volume.
    pub struct Volume {
        name: String = Key::new("name"),
        driver: String = Key::new("driver"),
        driver_opts: Mapping = Key::new("driver_opts"),
        external: bool = Key::new("external"),
        labels: Labels = Key::new("labels"),
        extensions: Extensions = Key::EXTENSIONS,
    }
}

object! {
    /// A file with settings that services can mount.
    pub struct Config {
        name: String = Key::new("name"),
        file: String = Key::new("file"),
        environment: String = Key::new("environment"),
        content: String = Key::new("content"),
        /// Set from the environment when the project is loaded; never printed.
        from_environment: String = Key::new(FROM_ENVIRONMENT).hidden(),
        external: bool = Key::new("external"),
        labels: Labels = Key::new("labels"),
        driver: String = Key::new("driver"),
        driver_opts: Mapping = Key::new("driver_opts").strict(),
        template_driver: String = Key::new("template_driver"),
        extensions: Extensions = Key::EXTENSIONS,
    }
}

object! {
    /// A file with something secret that services can mount.
    pub struct Secret {
        name: String = Key::new("name"),
        file: String = Key::new("file"),
        environment: String = Key::new("environment"),
        /// Set from the environment when the project is loaded; never printed.
        from_environment: String = Key::new(FROM_ENVIRONMENT).hidden(),
        external: bool = Key::new("external"),
        labels: Labels = Key::new("labels"),
        driver: String = Key::new("driver"),
        driver_opts: Mapping = Key::new("driver_opts").strict(),
        template_driver: String = Key::new("template_driver"),
        extensions: Extensions = Key::EXTENSIONS,
    }
}

object! {
    /// A language model.
    pub struct Model {
        name: String = Key::new("name"),
        model: String = Key::new("model"),
        context_size: i64 = Key::new("context_size"),
        runtime_flags: Vec<String> = Key::new("runtime_flags"),
        extensions: Extensions = Key::EXTENSIONS,
    }
}

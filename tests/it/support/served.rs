//! A small image as a registry has it, and the answers of a registry that behaves.

use compose::image::{Platform, sha256};

use super::mock::{Reply, Request};

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

#[derive(Clone)]
pub struct Served {
    pub manifest: Vec<u8>,
    pub config: Vec<u8>,
    pub layer: Vec<u8>,
}

impl Served {
    /// An image whose layer has 800,000 bytes in one file.
    pub fn new() -> Self {
        let data: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
        Self::of_layer(tar_of(&[("file", &data)]))
    }

    /// An image of one layer, an uncompressed tar.
    pub fn of_layer(layer: Vec<u8>) -> Self {
        let diff_id = sha256(&layer);
        Self::compressed(layer, &diff_id)
    }

    /// An image of one layer, as it is sent, and the digest of what is in it.
    pub fn compressed(layer: Vec<u8>, diff_id: &str) -> Self {
        let config = format!(
            r#"{{"architecture":"{}","os":"linux","rootfs":{{"type":"layers","diff_ids":["{diff_id}"]}}}}"#,
            Platform::host().architecture,
        )
        .into_bytes();
        let mut served = Self {
            manifest: Vec::new(),
            config,
            layer,
        };
        served.manifest = served.manifest_of(LAYER, served.layer.len());
        served
    }

    pub fn manifest_of(&self, layer_type: &str, layer_size: usize) -> Vec<u8> {
        format!(
            r#"{{"schemaVersion":2,"mediaType":"{MANIFEST}","config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":{}}},"layers":[{{"mediaType":"{layer_type}","digest":"{}","size":{layer_size}}}]}}"#,
            sha256(&self.config),
            self.config.len(),
            sha256(&self.layer),
        )
        .into_bytes()
    }

    pub fn index(&self, architecture: &str) -> Vec<u8> {
        format!(
            r#"{{"schemaVersion":2,"mediaType":"{INDEX}","manifests":[{{"mediaType":"{MANIFEST}","digest":"{}","size":{},"platform":{{"os":"linux","architecture":"{architecture}"}}}},{{"mediaType":"{MANIFEST}","digest":"{}","size":1,"platform":{{"os":"unknown","architecture":"unknown"}}}}]}}"#,
            sha256(&self.manifest),
            self.manifest.len(),
            sha256(b"attestation"),
        )
        .into_bytes()
    }

    /// Answers as a good registry does.
    pub fn answer(&self, request: &Request) -> Reply {
        let asked = request.path.rsplit('/').next().unwrap_or_default();
        for body in [&self.manifest, &self.config, &self.layer] {
            if asked == sha256(body) {
                return match request.from() {
                    Some(from) => Reply::status(206, &body[from..]).with(
                        "Content-Range",
                        format!("bytes {from}-{}/{}", body.len() - 1, body.len()),
                    ),
                    None => Reply::ok(body.clone()),
                };
            }
        }
        match asked {
            "" => Reply::ok("{}"),
            "latest" => Reply::ok(self.manifest.clone()),
            "index" => Reply::ok(self.index(&Platform::host().architecture)),
            "foreign" => Reply::ok(self.index("pdp11")),
            _ => Reply::status(404, ""),
        }
    }

    pub fn is_layer(&self, request: &Request) -> bool {
        request.path.ends_with(&sha256(&self.layer))
    }
}

/// Returns a tar of regular files.
pub fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, data) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        header.set_size(data.len() as u64);
        builder.append_data(&mut header, path, *data).expect("a tar in memory");
    }
    builder.into_inner().expect("a tar in memory")
}

//! Writes a container image of one layer with one program, as an OCI archive that `ctr images import` reads.

use std::fs::File;
use std::io::{BufWriter, Read, Write as _};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::json;
use sha2::{Digest as _, Sha256};

/// Writes image `name` to `archive`: `binary` in `directory` (relative, may be empty) is its entry point.
pub(super) fn write(archive: &Path, name: &str, binary: &Path, directory: &str) -> Result<()> {
    let program = binary.file_name().context("a binary has a name")?.to_string_lossy().into_owned();
    let entry = format!("/{directory}/{program}").replace("//", "/");
    let layer = layer(binary, directory, &entry)?;
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let config = serde_json::to_vec(&json!({
        "architecture": architecture, "os": "linux",
        "config": {"Env": ["PATH=/usr/local/bin:/usr/bin:/bin"], "Entrypoint": [entry]},
        "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
        "history": [{"created_by": "mortise-cluster"}],
    }))?;
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
        "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", &layer)],
    }))?;
    let mut entry = descriptor("application/vnd.oci.image.manifest.v1+json", &manifest);
    entry["platform"] = json!({"architecture": architecture, "os": "linux"});
    let tag = name.rsplit(':').next().unwrap_or_default();
    entry["annotations"] = json!({"io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag});
    let index = serde_json::to_vec(&json!({"schemaVersion": 2, "manifests": [entry]}))?;
    let mut out = tar::Builder::new(BufWriter::new(File::create(archive)?));
    append(&mut out, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644)?;
    append(&mut out, "index.json", &index, 0o644)?;
    for blob in [&layer, &config, &manifest] {
        append(&mut out, &format!("blobs/sha256/{}", &digest(blob)["sha256:".len()..]), blob, 0o644)?;
    }
    out.into_inner()?.flush().context("finishing the archive")
}

fn layer(binary: &Path, directory: &str, entry: &str) -> Result<Vec<u8>> {
    let mut layer = tar::Builder::new(Vec::new());
    let mut path = String::new();
    for part in directory.split('/').filter(|part| !part.is_empty()) {
        path.push_str(part);
        path.push('/');
        append_directory(&mut layer, &path)?;
    }
    append_directory(&mut layer, "tmp/")?;
    let mut content = Vec::new();
    File::open(binary)
        .and_then(|mut file| file.read_to_end(&mut content))
        .with_context(|| format!("reading `{}`", binary.display()))?;
    append(&mut layer, entry.trim_start_matches('/'), &content, 0o755)?;
    layer.into_inner().context("finishing the layer")
}

fn append<W: std::io::Write>(out: &mut tar::Builder<W>, path: &str, content: &[u8], mode: u32) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(mode);
    out.append_data(&mut header, path, content).with_context(|| format!("adding `{path}`"))
}

fn append_directory<W: std::io::Write>(out: &mut tar::Builder<W>, path: &str) -> Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_size(0);
    header.set_mode(0o755);
    out.append_data(&mut header, path, std::io::empty()).with_context(|| format!("adding `{path}`"))
}

fn descriptor(media_type: &str, content: &[u8]) -> serde_json::Value {
    json!({"mediaType": media_type, "digest": digest(content), "size": content.len()})
}

fn digest(content: &[u8]) -> String {
    let digest = Sha256::digest(content);
    digest.iter().fold("sha256:".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_leads_to_the_layer_by_digests_that_are_right() {
        let directory = std::env::temp_dir().join(format!("mortise-image-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("tool"), "#!program").unwrap();
        let archive = directory.join("tool.tar");
        write(&archive, "registry.test/tool:v1", &directory.join("tool"), "usr/bin").unwrap();
        let mut files = std::collections::BTreeMap::new();
        for entry in tar::Archive::new(File::open(&archive).unwrap()).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            files.insert(entry.path().unwrap().display().to_string(), content);
        }
        std::fs::remove_dir_all(directory).unwrap();
        let blob = |digest: &serde_json::Value| {
            let digest_text = digest.as_str().unwrap();
            let content = &files[&digest_text.replace("sha256:", "blobs/sha256/")];
            assert_eq!(super::digest(content), digest_text);
            content.clone()
        };
        let index: serde_json::Value = serde_json::from_slice(&files["index.json"]).unwrap();
        let manifest: serde_json::Value = serde_json::from_slice(&blob(&index["manifests"][0]["digest"])).unwrap();
        let config: serde_json::Value = serde_json::from_slice(&blob(&manifest["config"]["digest"])).unwrap();
        assert_eq!(config["config"]["Entrypoint"][0], "/usr/bin/tool");
        assert_eq!(config["rootfs"]["diff_ids"][0], manifest["layers"][0]["digest"]);
        let layer = blob(&manifest["layers"][0]["digest"]);
        let names: Vec<_> = tar::Archive::new(&layer[..])
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        assert_eq!(names, ["usr/", "usr/bin/", "tmp/", "usr/bin/tool"]);
    }
}

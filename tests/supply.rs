//! Policies as files that go from hand to hand: images, and who signed them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use crate::harness::{Bazaar, Options, example, guest, run, run_ok, skip};

/// A directory, and paths in it as arguments.
struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn at(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// A copy of a component.
    fn component(&self, name: &str, of: PathBuf) -> String {
        fs::copy(of, self.at(name)).unwrap();
        self.at(name)
    }
}

/// What a command that failed said.
fn refused<const N: usize>(arguments: [&str; N]) -> String {
    let output = run(arguments);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
    said
}

fn active(bazaar: &Bazaar) -> Value {
    bazaar.admin("GET", "/policy", b"").json()["active"]["name"].take()
}

#[test]
fn an_image_is_taken_wherever_a_component_is() {
    let files = Files::new();
    let component = files.component("marked.wasm", guest("marked"));
    let (tar, again) = (files.at("image.tar"), files.at("again.tar"));
    let packed = run_ok(["policy", "pack", &component, "--output", &tar]);
    assert!(packed.contains("image.tar: sha256:"), "{packed}");
    run_ok(["policy", "pack", &component, "--output", &again]);
    assert!(fs::read(&tar).unwrap() == fs::read(&again).unwrap());
    let refused_again = refused(["policy", "pack", &tar, "--output", &again]);
    assert!(
        refused_again.contains("an image already"),
        "{refused_again}"
    );

    let layout = files.at("layout");
    fs::create_dir(&layout).unwrap();
    let unpacked = Command::new("tar")
        .args(["-xf", &tar, "-C", &layout])
        .status();
    assert!(unpacked.unwrap().success());
    let checked = run_ok(["policy", "check", &tar]);
    assert!(checked.contains("marked"), "{checked}");
    let piped = Command::new("bash")
        .args(["-c", "\"$0\" policy check <(cat \"$1\")"])
        .args([env!("CARGO_BIN_EXE_bazaar"), &component])
        .output()
        .unwrap();
    assert!(
        piped.status.success(),
        "of a pipe nothing is lost: {piped:?}"
    );
    assert!(run_ok(["policy", "measure", &layout]).contains("marked"));

    let bazaar = Bazaar::start_default();
    let admin = format!("--admin=http://{}", bazaar.admin_address());
    let tried = run_ok(["policy", "shadow", &tar, "--share", "0.5", &admin]);
    assert!(tried.contains("marked"), "{tried}");
    let tried = run_ok(["policy", "canary", &layout, "--share", "0.5", &admin]);
    assert!(tried.contains("marked"), "{tried}");
    assert!(run_ok(["policy", "push", &tar, &admin]).starts_with("active: marked"));
    run_ok(["policy", "rollback", &admin]);
    assert!(run_ok(["policy", "push", &layout, &admin]).starts_with("active: marked"));
}

#[test]
fn what_is_no_sound_image_is_refused_with_what_is_wrong() {
    let files = Files::new();
    let component = files.component("marked.wasm", guest("marked"));
    let tar = files.at("image.tar");
    run_ok(["policy", "pack", &component, "--output", &tar]);
    let packed = fs::read(&tar).unwrap();
    let damaged = |name: &str, contents: &[u8]| {
        fs::write(files.at(name), contents).unwrap();
        refused(["policy", "check", &files.at(name)])
    };
    let half = damaged("half.tar", &packed[..packed.len() / 2]);
    assert!(half.contains("not copied whole"), "{half}");
    let mut flipped = packed.clone();
    flipped[packed.len() / 2] ^= 1;
    let flipped = damaged("flipped.tar", &flipped);
    assert!(flipped.contains("is damaged: its digest is"), "{flipped}");
    fs::create_dir(files.at("empty")).unwrap();
    let empty = refused(["policy", "push", &files.at("empty")]);
    assert!(empty.contains("no OCI image layout"), "{empty}");
    let gzipped = damaged("image.tar.gz", b"\x1f\x8b\x08\0\0\0\0\0");
    assert!(gzipped.contains("unpack it first"), "{gzipped}");

    let text = files.at("text");
    fs::write(&text, "no component").unwrap();
    let no_component = refused(["policy", "pack", &text, "--output", &tar]);
    assert!(
        no_component.contains("not a WebAssembly component"),
        "{no_component}"
    );
    assert!(fs::read(&tar).unwrap() == packed, "what was there stays");
}

#[test]
fn a_configuration_travels_in_the_image() {
    let files = Files::new();
    let component = files.component("api-keys.wasm", example("api-keys"));
    let (tar, config, other) = (files.at("image.tar"), files.at("config"), files.at("other"));
    let keys = |key: &str| format!(r#"{{"keys": {{"alice": "{key}"}}}}"#);
    fs::write(&config, keys("0123456789abcdef")).unwrap();
    fs::write(&other, keys("fedcba9876543210")).unwrap();
    run_ok(["policy", "pack", &component, "--output", &tar]);
    let unconfigured = refused(["policy", "check", &tar]);
    assert!(unconfigured.contains("keys"), "{unconfigured}");
    run_ok([
        "policy", "pack", &component, "--output", &tar, "--config", &config,
    ]);
    run_ok(["policy", "check", &tar]);

    let bazaar = Bazaar::start_default();
    let admin = format!("--admin=http://{}", bazaar.admin_address());
    let status = |key: &str| {
        let key = format!("Bearer {key}");
        let headers = [("authorization", key.as_str())];
        bazaar.send("GET", "/stocks/nvidia", &headers, b"").status
    };
    run_ok(["policy", "push", &tar, &admin]);
    assert_eq!(
        (status("0123456789abcdef"), status("fedcba9876543210")),
        (200, 401)
    );
    // Another one that is named takes its place.
    run_ok(["policy", "push", &tar, "--config", &other, &admin]);
    assert_eq!(
        (status("0123456789abcdef"), status("fedcba9876543210")),
        (401, 200)
    );
}

/// A bazaar whose gateway takes what these keys have signed.
fn trusting(files: &Files, keys: &str) -> Bazaar {
    fs::write(files.at("trusted"), keys).unwrap();
    Bazaar::start(Options {
        gateway_flags: vec![format!("--policy-trust={}", files.at("trusted"))],
        ..Options::default()
    })
}

#[test]
fn a_gateway_takes_signed_images_and_keeps_their_signatures() {
    let files = Files::new();
    let key = files.at("key");
    let public = run_ok(["policy", "keygen", &key, "--kind", "ecdsa-p256"]);
    assert!(
        public.starts_with("-----BEGIN PUBLIC KEY-----\n"),
        "{public}"
    );
    let other = files.at("other");
    run_ok(["policy", "keygen", &other]);
    let mut bazaar = trusting(&files, &public);
    let admin = format!("--admin=http://{}", bazaar.admin_address());

    let component = files.component("no-cache.wasm", example("no-cache"));
    let tar = files.at("image.tar");
    run_ok([
        "policy", "pack", &component, "--output", &tar, "--key", &other,
    ]);
    let strangers = refused(["policy", "push", &tar, &admin]);
    assert!(
        strangers.contains("its signature is not one"),
        "{strangers}"
    );
    assert_eq!(run_ok(["policy", "sign", &tar, "--key", &key]).trim(), tar);
    run_ok(["policy", "push", &tar, &admin]);
    assert_eq!(active(&bazaar), "no-cache");

    // A signature of an image serves no other component, and outlasts a restart.
    let marked = files.component("marked.wasm", guest("marked"));
    fs::write(files.at("marked.wasm.sig"), signatures_of(&tar)).unwrap();
    let exchanged = refused(["policy", "push", &marked, &admin]);
    assert!(exchanged.contains("another image"), "{exchanged}");
    bazaar.kill_and_restart_gateway();
    assert_eq!(active(&bazaar), "no-cache");
}

/// The signatures of an image, as they are sent.
fn signatures_of(tar: &str) -> String {
    let mut archive = tar::Archive::new(fs::File::open(tar).unwrap());
    let blobs = archive.entries().unwrap().map(|entry| {
        let mut blob = Vec::new();
        std::io::Read::read_to_end(&mut entry.unwrap(), &mut blob).unwrap();
        blob
    });
    let blobs: Vec<_> = blobs.collect();
    let json: Vec<Value> = blobs
        .iter()
        .filter_map(|it| serde_json::from_slice(it).ok())
        .collect();
    let annotation = "dev.cosignproject.cosign/signature";
    let layers = json
        .iter()
        .filter_map(|json| json["layers"].as_array())
        .flatten();
    let signed = layers.filter_map(|layer| layer["annotations"][annotation].as_str());
    let payload = blobs.iter().find(|blob| blob.starts_with(b"{\"critical\""));
    let manifest = blobs.iter().find(|blob| {
        let json: Option<Value> = serde_json::from_slice(blob).ok();
        json.is_some_and(|json| json["layers"][0]["mediaType"] == "application/wasm")
    });
    let signatures = signed.map(|signature| {
        use base64::Engine as _;
        let encode = |bytes: &[u8]| base64::engine::general_purpose::STANDARD.encode(bytes);
        let (payload, manifest) = (encode(payload.unwrap()), encode(manifest.unwrap()));
        format!("image:{signature}:{payload}:{manifest}")
    });
    signatures.collect::<Vec<_>>().join(",")
}

/// Runs openssl; none where it is not here.
fn openssl(dir: &Path, arguments: &[&str]) -> Option<Vec<u8>> {
    let Ok(output) = Command::new("openssl")
        .current_dir(dir)
        .args(arguments)
        .output()
    else {
        skip("what openssl signs", "there is no openssl");
        return None;
    };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}");
    Some(output.stdout)
}

/// Makes `key.pem` and `key.pub`, whose text it returns; none where openssl is not here.
fn openssl_key(files: &Files) -> Option<String> {
    let dir = files.0.path();
    let made = [
        "genpkey",
        "-algorithm",
        "EC",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-out",
        "key.pem",
    ];
    openssl(dir, &made)?;
    openssl(
        dir,
        &["pkey", "-in", "key.pem", "-pubout", "-out", "key.pub"],
    )?;
    Some(fs::read_to_string(files.at("key.pub")).unwrap())
}

/// `cosign sign-blob --key` signs what `openssl dgst -sha256 -sign` does, and `cosign verify-blob`
/// checks what `-verify` does: ECDSA with P-256 over SHA-256, in ASN.1.
#[test]
fn what_openssl_signs_as_cosign_does_is_taken_and_the_other_way_round() {
    let files = Files::new();
    let Some(public) = openssl_key(&files) else {
        return;
    };
    let run_openssl = |arguments: &[&str]| openssl(files.0.path(), arguments).unwrap();
    let bazaar = trusting(&files, &public);
    let admin = format!("--admin=http://{}", bazaar.admin_address());

    let component = files.component("marked.wasm", guest("marked"));
    let unsigned = refused(["policy", "push", &component, &admin]);
    assert!(unsigned.contains("not signed"), "{unsigned}");
    run_openssl(&[
        "dgst",
        "-sha256",
        "-sign",
        "key.pem",
        "-out",
        "signature",
        "marked.wasm",
    ]);
    run_openssl(&["base64", "-in", "signature", "-out", "marked.wasm.sig"]);
    run_ok(["policy", "push", &component, &admin]);
    assert_eq!(active(&bazaar), "marked");

    // The same signature travels in an image, whatever that is named.
    let tar = files.at("image.tar");
    run_ok(["policy", "rollback", &admin]);
    run_ok(["policy", "pack", &component, "--output", &tar]);
    run_ok(["policy", "push", &tar, &admin]);
    assert_eq!(active(&bazaar), "marked");

    // What this project signs with that key, openssl takes: of a component, and of an image.
    run_ok(["policy", "sign", &component, "--key", &files.at("key.pem")]);
    run_openssl(&[
        "base64",
        "-d",
        "-A",
        "-in",
        "marked.wasm.sig",
        "-out",
        "signature",
    ]);
    run_openssl(&[
        "dgst",
        "-sha256",
        "-verify",
        "key.pub",
        "-signature",
        "signature",
        "marked.wasm",
    ]);
    fs::remove_file(files.at("marked.wasm.sig")).unwrap();
    run_ok([
        "policy",
        "pack",
        &component,
        "--output",
        &tar,
        "--key",
        &files.at("key.pem"),
    ]);
    let signatures = signatures_of(&tar);
    let [_, signature, payload, _] = signatures.split(':').collect::<Vec<_>>()[..] else {
        panic!("{signatures}");
    };
    for (name, text) in [("signature", signature), ("payload", payload)] {
        fs::write(files.at(&format!("{name}.base64")), text).unwrap();
        let encoded = format!("{name}.base64");
        run_openssl(&["base64", "-d", "-A", "-in", &encoded, "-out", name]);
    }
    run_openssl(&[
        "dgst",
        "-sha256",
        "-verify",
        "key.pub",
        "-signature",
        "signature",
        "payload",
    ]);
    let payload: Value = serde_json::from_slice(&fs::read(files.at("payload")).unwrap()).unwrap();
    assert_eq!(
        payload["critical"]["type"],
        "cosign container image signature"
    );
    run_ok(["policy", "rollback", &admin]);
    run_ok(["policy", "push", &tar, &admin]);
    assert_eq!(active(&bazaar), "marked");
}

/// Adds a blob to an OCI image layout; returns what names it.
fn add_blob(layout: &Path, media_type: &str, bytes: &[u8]) -> Value {
    let digest = domain::Hex(&Sha256::digest(bytes)).to_string();
    fs::write(layout.join("blobs/sha256").join(&digest), bytes).unwrap();
    json!({ "mediaType": media_type, "size": bytes.len(), "digest": format!("sha256:{digest}") })
}

/// Adds to a layout the signature of its image by `key.pem`, of a payload that names this digest, as
/// `cosign sign --key` followed by `cosign save` has it: see its SIGNATURE_SPEC.md. Nothing of it is made by this project.
fn add_signature_as_cosign(files: &Files, layout: &Path, digest: &str) {
    let payload = format!(
        r#"{{"critical":{{"identity":{{"docker-reference":"registry.example/policy"}},"image":{{"docker-manifest-digest":"{digest}"}},"type":"cosign container image signature"}},"optional":{{"creator":"a pipeline"}}}}"#
    );
    fs::write(files.at("payload"), &payload).unwrap();
    let sign = [
        "dgst",
        "-sha256",
        "-sign",
        "key.pem",
        "-out",
        "signature",
        "payload",
    ];
    openssl(files.0.path(), &sign).unwrap();
    let signature = openssl(files.0.path(), &["base64", "-A", "-in", "signature"]).unwrap();
    let mut layer = add_blob(
        layout,
        "application/vnd.dev.cosign.simplesigning.v1+json",
        payload.as_bytes(),
    );
    let config = json!({
        "architecture": "",
        "config": {},
        "created": "0001-01-01T00:00:00Z",
        "history": [{ "created": "0001-01-01T00:00:00Z" }],
        "os": "",
        "rootfs": { "type": "layers", "diff_ids": [layer["digest"]] },
    });
    let signature = String::from_utf8(signature).unwrap();
    layer["annotations"] = json!({ "dev.cosignproject.cosign/signature": signature.trim() });
    let config = add_blob(
        layout,
        "application/vnd.oci.image.config.v1+json",
        config.to_string().as_bytes(),
    );
    let manifest_type = "application/vnd.oci.image.manifest.v1+json";
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": manifest_type,
        "config": config,
        "layers": [layer],
    });
    let mut signatures = add_blob(layout, manifest_type, manifest.to_string().as_bytes());
    let index = layout.join("index.json");
    let mut named: Value = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    let mut image = named["manifests"][0].take();
    image["annotations"] = json!({ "kind": "dev.cosignproject.cosign/image" });
    signatures["annotations"] = json!({ "kind": "dev.cosignproject.cosign/sigs" });
    named["manifests"] = json!([image, signatures]);
    fs::write(index, named.to_string()).unwrap();
}

#[test]
fn an_image_that_openssl_signed_as_cosign_does_is_taken_and_no_other() {
    let files = Files::new();
    let Some(public) = openssl_key(&files) else {
        return;
    };
    let bazaar = trusting(&files, &public);
    let admin = format!("--admin=http://{}", bazaar.admin_address());
    let component = files.component("marked.wasm", guest("marked"));
    let tar = files.at("image.tar");
    run_ok(["policy", "pack", &component, "--output", &tar]);
    let layout = |name: &str| {
        let layout = files.at(name);
        fs::create_dir(&layout).unwrap();
        let unpacked = Command::new("tar")
            .args(["-xf", &tar, "-C", &layout])
            .status();
        assert!(unpacked.unwrap().success());
        layout
    };

    let signed = layout("signed");
    let unsigned = refused(["policy", "push", &signed, &admin]);
    assert!(unsigned.contains("not signed"), "{unsigned}");
    let index = fs::read(Path::new(&signed).join("index.json")).unwrap();
    let index: Value = serde_json::from_slice(&index).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap();
    add_signature_as_cosign(&files, Path::new(&signed), digest);
    run_ok(["policy", "push", &signed, &admin]);
    assert_eq!(active(&bazaar), "marked");

    run_ok(["policy", "rollback", &admin]);
    let other = layout("other");
    let digest = format!("sha256:{}", "0".repeat(64));
    add_signature_as_cosign(&files, Path::new(&other), &digest);
    let of_another = refused(["policy", "push", &other, &admin]);
    assert!(of_another.contains("another image"), "{of_another}");
    assert_eq!(active(&bazaar), "default");
}

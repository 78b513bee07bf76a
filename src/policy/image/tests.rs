use super::*;
use std::fs;
use std::path::PathBuf;

use frontend_policy::Trust;
use frontend_policy::admission::KeyKind;
use tar::{EntryType, Header};
use tempfile::TempDir;

/// The smallest component, and one more.
const COMPONENT: &[u8] = b"\0asm\x0d\0\x01\0";

fn component(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

/// One that imports a function and exports it again.
fn with_names() -> Vec<u8> {
    component(
        r#"(component
            (import "a:b/c@1.0.0" (instance $c (export "f" (func))))
            (component (import "inner" (func)))
            (export "bazaar:policy/policy@1.2.0" (instance $c)))"#,
    )
}

fn pack(component: &[u8]) -> Image {
    Image::pack(component.to_owned(), None, None).unwrap()
}

struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn open(&self, tar: &[u8]) -> Result<Option<Image>, ImageError> {
        let path = self.path("image.tar");
        fs::write(&path, tar).unwrap();
        Image::open(&path)
    }

    /// What is said of a tar that is none of a policy.
    fn refused(&self, tar: &[u8]) -> String {
        self.open(tar).unwrap_err().to_string()
    }
}

/// Entries of a tar, to be changed.
fn entries(tar: &[u8]) -> Vec<(String, Vec<u8>)> {
    let mut archive = tar::Archive::new(tar);
    let entries = archive.entries().unwrap().map(|entry| {
        let mut entry = entry.unwrap();
        let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        let mut contents = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut contents).unwrap();
        (name, contents)
    });
    entries.collect()
}

fn tar_of(entries: &[(String, Vec<u8>)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, contents) in entries {
        append(&mut tar, name, EntryType::Regular, contents);
    }
    tar.into_inner().unwrap()
}

/// Writes an entry of whatever name.
fn append(tar: &mut tar::Builder<Vec<u8>>, name: &str, kind: EntryType, contents: &[u8]) {
    let mut header = Header::new_ustar();
    header.as_ustar_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_size(contents.len() as u64);
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_cksum();
    tar.append(&header, contents).unwrap();
}

/// A layout whose index names these manifests, with these blobs.
fn layout_of(manifests: Vec<Descriptor>, blobs: &[&[u8]]) -> Vec<u8> {
    let mut layout = LayoutWriter::default();
    for blob in blobs {
        layout.add("", blob.to_vec());
    }
    manifests.into_iter().for_each(|it| layout.name(it));
    layout.into_tar().unwrap()
}

#[test]
fn an_image_is_read_as_it_was_packed_from_a_tar_and_from_a_directory() {
    let files = Files::new();
    let mut image =
        Image::pack(with_names(), Some(b"a = 1\n".to_vec()), Some("c2ln".into())).unwrap();
    for kind in [KeyKind::Ed25519, KeyKind::EcdsaP256] {
        image.sign(&Signatory::generate(kind).unwrap());
    }
    let tar = image.to_tar().unwrap();
    assert_eq!(files.open(&tar).unwrap().unwrap(), image);
    tar::Archive::new(&*tar)
        .unpack(files.path("layout"))
        .unwrap();
    assert_eq!(Image::open(&files.path("layout")).unwrap().unwrap(), image);
    let dotted: Vec<_> = entries(&tar)
        .into_iter()
        .map(|(name, contents)| (format!("./{name}"), contents))
        .collect();
    assert_eq!(files.open(&tar_of(&dotted)).unwrap().unwrap(), image);
}

#[test]
fn the_same_component_makes_the_same_image() {
    let key = Signatory::generate(KeyKind::EcdsaP256).unwrap();
    let tar = || {
        let mut image = pack(&with_names());
        image.sign(&key);
        image.to_tar().unwrap()
    };
    assert!(tar() == tar());
    assert_ne!(pack(&with_names()).digest(), pack(COMPONENT).digest());
    let configured = Image::pack(COMPONENT.to_owned(), Some(vec![]), None).unwrap();
    assert_ne!(configured.digest(), pack(COMPONENT).digest());
    assert_eq!(configured.configuration.as_deref(), Some(&b""[..]));
}

#[test]
fn an_image_says_what_the_artifact_layout_wants() {
    let tar = pack(&with_names()).to_tar().unwrap();
    let entries: BTreeMap<_, _> = entries(&tar).into_iter().collect();
    let json =
        |name: &str| -> serde_json::Value { serde_json::from_slice(&entries[name]).unwrap() };
    assert_eq!(
        json("oci-layout"),
        serde_json::json!({ "imageLayoutVersion": "1.0.0" })
    );
    let blob = |named: &serde_json::Value| {
        let digest = named["digest"].as_str().unwrap();
        format!("blobs/sha256/{}", digest.strip_prefix("sha256:").unwrap())
    };
    let manifest = json(&blob(&json("index.json")["manifests"][0]));
    assert_eq!(
        manifest["mediaType"],
        "application/vnd.oci.image.manifest.v1+json"
    );
    assert_eq!(
        manifest["config"]["mediaType"],
        "application/vnd.wasm.config.v0+json"
    );
    assert_eq!(manifest["layers"][0]["mediaType"], "application/wasm");
    assert_eq!(entries[&blob(&manifest["layers"][0])], with_names());
    let config = json(&blob(&manifest["config"]));
    assert_eq!(
        config,
        serde_json::json!({
            "created": "1970-01-01T00:00:00Z",
            "architecture": "wasm",
            "os": "wasip2",
            "layerDigests": [manifest["layers"][0]["digest"]],
            "component": {
                "exports": ["bazaar:policy/policy@1.2.0"],
                "imports": ["a:b/c@1.0.0"],
            },
        })
    );
}

#[test]
fn what_is_no_component_is_not_packed() {
    for wrong in [
        &b""[..],
        b"(component)",
        b"\0asm\x01\0\0\0",
        b"\0asm\x0d\0\x01\0\x07",
    ] {
        let packed = Image::pack(wrong.to_owned(), None, None);
        assert!(
            matches!(packed, Err(ImageError::NotAComponent(_))),
            "{wrong:?}"
        );
    }
}

#[test]
fn a_file_of_another_kind_is_none() {
    let files = Files::new();
    for other in [&b""[..], b"\0asm", COMPONENT, b"text", &[0; 4096]] {
        assert_eq!(files.open(other).unwrap(), None);
    }
}

#[test]
fn a_signed_image_is_trusted_by_the_key_that_signed_it_alone() {
    let files = Files::new();
    for kind in [KeyKind::Ed25519, KeyKind::EcdsaP256] {
        let [mine, other] = [(); 2].map(|()| Signatory::generate(kind).unwrap());
        let mut image = pack(COMPONENT);
        assert_eq!(image.signature(), None);
        image.sign(&other);
        image.sign(&mine);
        image.sign(&mine);
        assert_eq!(
            image.signatures.len(),
            2,
            "the same signature is there once"
        );
        let opened = files.open(&image.to_tar().unwrap()).unwrap().unwrap();
        let signature = opened.signature().unwrap();
        let trust = Trust::parse(&mine.public()).unwrap();
        assert_eq!(trust.verify(&opened.component, Some(&signature)), Ok(()));
        assert!(trust.verify(&with_names(), Some(&signature)).is_err());
        let strangers = Signatory::generate(kind).unwrap();
        let trust = Trust::parse(&strangers.public()).unwrap();
        assert!(trust.verify(&opened.component, Some(&signature)).is_err());
    }
}

#[test]
fn a_damaged_image_is_refused() {
    let files = Files::new();
    let mut image = Image::pack(with_names(), Some(b"x".to_vec()), None).unwrap();
    image.sign(&Signatory::generate(KeyKind::EcdsaP256).unwrap());
    let sound = entries(&image.to_tar().unwrap());
    for (at, (name, contents)) in sound.iter().enumerate() {
        let is_blob = name.starts_with("blobs/");
        if is_blob {
            let mut changed = sound.clone();
            changed[at].1[contents.len() / 2] ^= 1;
            let said = files.refused(&tar_of(&changed));
            assert!(said.contains("is damaged"), "{name}: {said}");
        }
        let mut shortened = sound.clone();
        shortened[at].1.pop();
        let said = files.refused(&tar_of(&shortened));
        assert!(!is_blob || said.contains("should have"), "{name}: {said}");
        let mut lacking = sound.clone();
        lacking.remove(at);
        let said = files.refused(&tar_of(&lacking));
        assert!(
            said.contains("has no `") || said.contains("does not have it"),
            "{said}"
        );
    }
}

#[test]
fn a_tar_that_was_not_copied_whole_is_refused() {
    let files = Files::new();
    let tar = pack(&with_names()).to_tar().unwrap();
    for bytes in (TAR_HEADER..tar.len() - 1024).step_by(100) {
        let said = files.refused(&tar[..bytes]);
        assert!(!said.is_empty(), "{bytes}");
    }
    let within = files.refused(&tar[..TAR_HEADER + 10]);
    assert!(within.contains("not copied whole"), "{within}");
}

/// A tar's header of an entry, in bytes.
const TAR_HEADER: usize = 512;

#[test]
fn what_is_no_image_of_a_policy_is_refused_with_what_it_is() {
    let files = Files::new();
    let image = pack(COMPONENT);
    let descriptor = |media_type: &str, blob: &[u8]| Descriptor::of(media_type, blob);
    let named = descriptor(MANIFEST, &image.manifest);
    let blobs: [&[u8]; 3] = [COMPONENT, &image.config, &image.manifest];
    let with_manifest = |manifest: &Manifest| {
        let json = serde_json::to_vec(manifest).unwrap();
        layout_of(
            vec![descriptor(MANIFEST, &json)],
            &[COMPONENT, &image.config, &json],
        )
    };
    let config = descriptor(WASM_CONFIG, &image.config);
    let wasm = descriptor(WASM_LAYER, COMPONENT);
    let gzip = descriptor("application/vnd.oci.image.layer.v1.tar+gzip", COMPONENT);
    let huge = Descriptor {
        size: u64::MAX,
        ..named.clone()
    };
    let huge_layer = Descriptor {
        size: u64::MAX,
        ..wasm.clone()
    };
    let container = descriptor("application/vnd.oci.image.config.v1+json", &image.config);
    let another = pack(&with_names());
    let mixed = Manifest::new(descriptor(WASM_CONFIG, &another.config), vec![wasm.clone()]);
    let mixed_json = serde_json::to_vec(&mixed).unwrap();
    for (tar, said) in [
        (layout_of(vec![], &blobs), "no image in it"),
        (
            layout_of(vec![named.clone(), named.clone()], &blobs),
            "several images",
        ),
        (
            layout_of(vec![descriptor(INDEX, &image.manifest)], &blobs),
            "several platforms",
        ),
        (
            layout_of(vec![descriptor("text/plain", &image.manifest)], &blobs),
            "text/plain",
        ),
        (layout_of(vec![huge], &blobs), "too large"),
        (
            with_manifest(&Manifest::new(config.clone(), vec![gzip])),
            "tar+gzip",
        ),
        (
            with_manifest(&Manifest::new(config.clone(), vec![])),
            "0 layers",
        ),
        (
            with_manifest(&Manifest::new(
                config.clone(),
                vec![wasm.clone(), wasm.clone()],
            )),
            "2 layers",
        ),
        (
            with_manifest(&Manifest::new(config.clone(), vec![huge_layer])),
            "too large",
        ),
        (
            with_manifest(&Manifest::new(container, vec![wasm.clone()])),
            "not that of a component",
        ),
        (
            layout_of(vec![descriptor(MANIFEST, b"{}")], &[b"{}"]),
            "not one of an OCI image",
        ),
        (
            layout_of(
                vec![descriptor(MANIFEST, &mixed_json)],
                &[COMPONENT, &another.config, &mixed_json],
            ),
            "another component",
        ),
        (
            tar_of(&[("manifest.json".into(), b"[]".to_vec())]),
            "no `oci-layout`",
        ),
        (
            tar_of(&[(
                "oci-layout".into(),
                br#"{"imageLayoutVersion":"2.0.0"}"#.to_vec(),
            )]),
            "version \"2.0.0\"",
        ),
    ] {
        let problem = files.refused(&tar);
        assert!(problem.contains(said), "{said}: {problem}");
    }
    for compressed in [&b"\x1f\x8b\x08\0"[..], b"\x28\xb5\x2f\xfd\0"] {
        let problem = files.refused(compressed);
        assert!(problem.contains("unpack it first"), "{problem}");
    }
    fs::create_dir(files.path("empty")).unwrap();
    let problem = Image::open(&files.path("empty")).unwrap_err().to_string();
    assert!(problem.contains("no `oci-layout`"), "{problem}");
}

#[test]
fn a_tar_with_tricks_is_refused() {
    let files = Files::new();
    let sound = pack(COMPONENT).to_tar().unwrap();
    for (name, kind, said) in [
        ("../oci-layout", EntryType::Regular, "not inside"),
        ("/etc/passwd", EntryType::Regular, "not inside"),
        ("blobs/../../x", EntryType::Regular, "not inside"),
        ("blobs//x", EntryType::Regular, "not inside"),
        ("..", EntryType::Directory, "not inside"),
        ("blobs/sha256/x", EntryType::Symlink, "a link"),
        ("blobs/sha256/x", EntryType::Link, "a link"),
        ("blobs/sha256/x", EntryType::Fifo, "neither"),
        ("blobs/sha256/x", EntryType::Block, "neither"),
        ("index.json", EntryType::Regular, "there twice"),
    ] {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, contents) in entries(&sound) {
            append(&mut tar, &name, EntryType::Regular, &contents);
        }
        append(&mut tar, name, kind, b"");
        let problem = files.refused(&tar.into_inner().unwrap());
        assert!(problem.contains(said), "{name}: {problem}");
    }
    let many: Vec<_> = (0..300)
        .map(|number| (format!("{number}"), vec![]))
        .collect();
    let problem = files.refused(&tar_of(&many));
    assert!(problem.contains("more than 256"), "{problem}");
    // Files that other tools add, and directories, are passed over.
    let mut tar = tar::Builder::new(Vec::new());
    append(&mut tar, "blobs/", EntryType::Directory, b"");
    append(&mut tar, "./", EntryType::Directory, b"");
    append(&mut tar, "repositories", EntryType::Regular, b"{}");
    for (name, contents) in entries(&sound) {
        append(&mut tar, &name, EntryType::Regular, &contents);
    }
    assert_eq!(
        files.open(&tar.into_inner().unwrap()).unwrap(),
        Some(pack(COMPONENT))
    );
}

#[test]
fn signatures_of_another_image_or_of_another_kind_are_refused() {
    let files = Files::new();
    let image = pack(COMPONENT);
    let key = Signatory::generate(KeyKind::EcdsaP256).unwrap();
    let with_signatures = |layers: Vec<Descriptor>, payload: &[u8]| {
        let config = Descriptor::of("application/vnd.oci.image.config.v1+json", b"{}");
        let signatures = serde_json::to_vec(&Manifest::new(config, layers)).unwrap();
        let mut named = Descriptor::of(MANIFEST, &signatures);
        named.annotations = annotations(KIND_SIGNATURES, "sha256-x.sig");
        layout_of(
            vec![Descriptor::of(MANIFEST, &image.manifest), named],
            &[
                COMPONENT,
                b"{}",
                &image.config,
                &image.manifest,
                &signatures,
                payload,
            ],
        )
    };
    let signed = |media_type: &str, payload: &[u8]| {
        let mut layer = Descriptor::of(media_type, payload);
        layer
            .annotations
            .insert(SIGNATURE.to_owned(), key.sign(payload));
        layer
    };
    let mine = payload(&image.manifest);
    let opened = files
        .open(&with_signatures(vec![signed(PAYLOAD, &mine)], &mine))
        .unwrap()
        .unwrap();
    assert_eq!(opened.signatures.len(), 1);
    let others = payload(b"{}");
    for (tar, said) in [
        (
            with_signatures(vec![signed(PAYLOAD, &others)], &others),
            "another image",
        ),
        (
            with_signatures(vec![signed("text/plain", &mine)], &mine),
            "text/plain",
        ),
        (
            with_signatures(vec![Descriptor::of(PAYLOAD, &mine)], &mine),
            "base64",
        ),
        (
            with_signatures(vec![signed(PAYLOAD, &mine); 9], &mine),
            "looks at 8",
        ),
    ] {
        let problem = files.refused(&tar);
        assert!(problem.contains(said), "{said}: {problem}");
    }
}

#[test]
fn signatures_that_cosign_saved_are_found() {
    // `cosign save` says with an annotation what is what, and has the signatures of other kinds of
    // things beside it; a registry that is copied into a layout has them under tags.
    let files = Files::new();
    let mut image = pack(COMPONENT);
    image.sign(&Signatory::generate(KeyKind::EcdsaP256).unwrap());
    let sound = entries(&image.to_tar().unwrap());
    let reindexed = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut changed = sound.clone();
        let index = changed
            .iter_mut()
            .find(|(name, _)| name == "index.json")
            .unwrap();
        let mut json = serde_json::from_slice(&index.1).unwrap();
        change(&mut json);
        index.1 = json.to_string().into_bytes();
        files.open(&tar_of(&changed)).unwrap().unwrap()
    };
    let by_kind = reindexed(&|index| {
        for named in index["manifests"].as_array_mut().unwrap() {
            named["annotations"]
                .as_object_mut()
                .unwrap()
                .remove(REF_NAME);
        }
        let mut attestations = index["manifests"][1].clone();
        attestations["annotations"][KIND] = "dev.cosignproject.cosign/atts".into();
        index["manifests"]
            .as_array_mut()
            .unwrap()
            .push(attestations);
    });
    assert_eq!(by_kind.signatures, image.signatures);
    let by_tag = reindexed(&|index| {
        for named in index["manifests"].as_array_mut().unwrap() {
            named["annotations"].as_object_mut().unwrap().remove(KIND);
        }
    });
    assert_eq!(by_tag.signatures, image.signatures);
}

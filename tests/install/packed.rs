//! What a package puts where, and whether a machine without Bazaar has all that units start and people read once it is
//! unpacked: by the manifest, whose assets `cargo deb` packs, in every run; of a package that was made, by `make package-check`.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;
use tempfile::TempDir;

use super::pages;
use crate::harness::run_ok;

const CHECKOUT: &str = env!("CARGO_MANIFEST_DIR");

/// Where a root has the program, units and manual pages.
const PROGRAM: &str = "usr/bin/bazaar";
const UNITS: &str = "usr/lib/systemd/system";
const PAGES: &str = "usr/share/man/man1";

/// What else has to be where people and shells look for it.
const OTHERS: [&str; 8] = [
    PROGRAM,
    "usr/share/bash-completion/completions/bazaar",
    "usr/share/fish/vendor_completions.d/bazaar.fish",
    "usr/share/zsh/vendor-completions/_bazaar",
    "usr/share/doc/bazaar/README.md",
    "usr/share/doc/bazaar/SECURITY.md",
    "usr/share/doc/bazaar/CHANGELOG.md",
    "usr/share/doc/bazaar/docs/OPERATING.md",
];

#[derive(Debug, Deserialize)]
struct Manifest {
    package: Package,
}

#[derive(Debug, Deserialize)]
struct Package {
    metadata: Metadata,
}

#[derive(Debug, Deserialize)]
struct Metadata {
    deb: Deb,
}

/// How a `.deb` is made, as `cargo deb` reads it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Deb {
    depends: String,
    maintainer_scripts: PathBuf,
    conf_files: BTreeSet<String>,
    assets: Vec<Asset>,
}

/// Which file, or which of a directory; where that goes; and with which mode, in octal.
#[derive(Debug, Deserialize)]
struct Asset(String, String, String);

/// A file that is packed.
#[derive(Debug)]
struct Packed {
    from: PathBuf,
    to: PathBuf,
    mode: u32,
}

impl Deb {
    fn of_the_manifest() -> Self {
        let text = fs::read_to_string(Path::new(CHECKOUT).join("Cargo.toml")).unwrap();
        let manifest: Manifest = toml::from_str(&text).unwrap();
        manifest.package.metadata.deb
    }

    fn files(&self, made: &Path) -> Vec<Packed> {
        let assets = self.assets.iter();
        assets.flat_map(|asset| asset.files(made)).collect()
    }

    fn script(&self, name: &str) -> PathBuf {
        Path::new(CHECKOUT)
            .join(&self.maintainer_scripts)
            .join(name)
    }
}

impl Asset {
    /// The files that it stands for; what `scripts/package` makes before it packs is in `made`.
    fn files(&self, made: &Path) -> Vec<Packed> {
        let Self(from, to, mode) = self;
        let mode = u32::from_str_radix(mode, 8).unwrap();
        let pattern = match from.strip_prefix("target/package/") {
            Some(from) => made.join(from),
            None if from == "target/release/bazaar" => env!("CARGO_BIN_EXE_bazaar").into(),
            None => Path::new(CHECKOUT).join(from),
        };
        let files = matching(&pattern);
        assert!(!files.is_empty(), "there is no {from}");
        let packed = files.into_iter().map(|from| {
            let to = match to.strip_suffix('/') {
                Some(dir) => Path::new(dir).join(from.file_name().unwrap()),
                None => to.into(),
            };
            Packed { from, to, mode }
        });
        packed.collect()
    }
}

/// The file of that name, or those of its directory that end as it does behind an asterisk.
fn matching(pattern: &Path) -> Vec<PathBuf> {
    let name = pattern.file_name().and_then(OsStr::to_str).unwrap();
    let Some(ending) = name.strip_prefix('*') else {
        return vec![pattern.to_owned()];
    };
    let dir = fs::read_dir(pattern.parent().unwrap()).unwrap();
    let files = dir.map(|file| file.unwrap().path());
    files
        .filter(|file| file.is_file() && file.to_string_lossy().ends_with(ending))
        .collect()
}

/// What `scripts/package` makes before it packs.
fn made() -> TempDir {
    let made = tempfile::tempdir().unwrap();
    let completions = made.path().join("completions");
    fs::create_dir(&completions).unwrap();
    for shell in ["bash", "fish", "zsh"] {
        let text = run_ok(["completions", shell]);
        fs::write(completions.join(format!("bazaar.{shell}")), text).unwrap();
    }
    run_ok(["man", made.path().join("man").to_str().unwrap()]);
    made
}

/// A root that has these files and no others.
fn unpacked(files: &[Packed]) -> TempDir {
    let root = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for file in files {
        let to = root.path().join(&file.to);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        // It is large, and there already.
        if file.to == Path::new(PROGRAM) && fs::hard_link(&file.from, &to).is_ok() {
            continue;
        }
        fs::copy(&file.from, &to)
            .unwrap_or_else(|error| panic!("{}: {error}", file.from.display()));
        fs::set_permissions(&to, fs::Permissions::from_mode(file.mode)).unwrap();
    }
    root
}

/// Holds a package's files, with their modes, to what has to be where; settings are its operators'.
fn check_files(files: &BTreeMap<PathBuf, u32>, settings: &BTreeSet<String>) {
    let examples = fs::read_dir(Path::new(CHECKOUT).join("deploy/systemd")).unwrap();
    let examples = examples.map(|file| {
        let name = PathBuf::from(file.unwrap().file_name());
        match name.extension().is_some_and(|ending| ending == "env") {
            true => Path::new("etc/bazaar").join(name),
            false => Path::new(UNITS).join(name),
        }
    });
    let commands = pages(&[]).into_iter().chain(["bazaar.1".to_owned()]);
    let pages = commands.map(|page| Path::new(PAGES).join(page));
    let others = OTHERS.into_iter().map(PathBuf::from);
    for file in examples.chain(pages).chain(others) {
        assert!(
            files.contains_key(&file),
            "{} is not packed",
            file.display()
        );
    }
    for (file, mode) in files {
        let expected = match file {
            file if file == Path::new(PROGRAM) => 0o755,
            // Passwords are among them.
            file if file.starts_with("etc") => 0o640,
            _ => 0o644,
        };
        assert_eq!(*mode, expected, "{}: {mode:o}", file.display());
    }
    // Else an upgrade would put its own in their place.
    let kept = files.keys().filter(|file| file.starts_with("etc"));
    let kept: BTreeSet<_> = kept.map(|file| format!("/{}", file.display())).collect();
    assert_eq!(&kept, settings);
}

/// Runs what is in a root, and looks whether all is there that its units name.
fn check_root(root: &Path) {
    runs(&root.join(PROGRAM));
    let services = matching(&root.join(UNITS).join("*.service"));
    assert_eq!(services.len(), 3, "a catalog, a replica and a gateway");
    for unit in services {
        let text = fs::read_to_string(&unit).unwrap();
        let said = |name: &str| -> Vec<&str> {
            let lines = text.lines().filter_map(|line| line.split_once('='));
            let lines = lines.filter(|(said, _)| said.starts_with(name));
            lines.map(|(_, value)| value).collect()
        };
        let unit = unit.display();
        let started = said("Exec").join(" ");
        let started = started
            .split_whitespace()
            .map(|word| word.trim_matches('\''));
        let mut programs = started.filter(|word| word.starts_with("/usr/")).peekable();
        assert!(programs.peek().is_some(), "{unit} starts nothing");
        for named in programs.chain(said("EnvironmentFile")) {
            let file = root.join(named.trim_start_matches('/'));
            assert!(file.is_file(), "{unit} names {named}");
        }
        assert_eq!(said("DynamicUser"), ["yes"], "{unit} runs as root");
        assert_eq!(said("SupplementaryGroups"), ["bazaar"], "{unit}");
    }
}

/// Runs a program, which has to be of this release.
fn runs(program: &Path) {
    let said = done(Command::new(program).arg("--version"));
    let release = format!("bazaar {}", env!("CARGO_PKG_VERSION"));
    assert!(said.starts_with(&release), "{said}");
}

/// What a command prints that has to succeed.
fn done(command: &mut Command) -> String {
    let done = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let why = String::from_utf8_lossy(&done.stderr).into_owned();
    assert!(done.status.success(), "{command:?}: {why}");
    String::from_utf8(done.stdout).expect("what it prints is text")
}

#[test]
fn an_empty_machine_has_what_units_start_and_people_read_once_it_is_unpacked() {
    let (deb, made) = (Deb::of_the_manifest(), made());
    let files = deb.files(made.path());
    let modes = files.iter().map(|file| (file.to.clone(), file.mode));
    let modes: BTreeMap<_, _> = modes.collect();
    assert_eq!(modes.len(), files.len(), "two of them go to one place");
    check_files(&modes, &deb.conf_files);
    check_root(unpacked(&files).path());
}

#[test]
fn the_group_that_units_name_is_made_where_there_is_none() {
    let deb = Deb::of_the_manifest();
    for (found, arguments, made) in [
        (2, ["configure", ""], "--system bazaar\n"),
        (0, ["configure", "0.1.0"], ""),
        (2, ["abort-upgrade", "0.2.0"], ""),
    ] {
        let others = format!(
            "getent() {{ return {found}; }}; groupadd() {{ echo \"$@\"; }}; systemctl() {{ :; }}; "
        );
        let mut script = Command::new("sh");
        script.args(["-c", &format!("{others}. \"$0\"")]);
        script.arg(deb.script("postinst")).args(arguments);
        assert_eq!(done(&mut script), made, "{arguments:?}");
    }
    // Which has `groupadd`.
    assert!(deb.depends.contains("passwd"), "{}", deb.depends);
}

/// A line of what `dpkg-deb --contents` prints, where it is a file's: that, and its mode.
fn listed(line: &str) -> Option<(PathBuf, u32)> {
    let words: Vec<_> = line.split_whitespace().collect();
    let [kind_and_mode, owner, _, _, _, file] = words[..] else {
        panic!("not a line of a file: {line}");
    };
    assert!(["0/0", "root/root"].contains(&owner), "{line}");
    let mode = kind_and_mode.strip_prefix('-')?;
    let bits = mode.chars().map(|bit| u32::from(bit != '-'));
    let mode = bits.fold(0, |mode, bit| (mode << 1) | bit);
    let file = file.trim_start_matches("./");
    let page = file.strip_suffix(".gz");
    let page = page.filter(|page| page.starts_with(PAGES));
    Some((page.unwrap_or(file).into(), mode))
}

/// The one file of a directory that ends so.
fn only(dir: &Path, ending: &str) -> PathBuf {
    let mut files = matching(&dir.join(format!("*{ending}")));
    let file = files.pop();
    let file = file.unwrap_or_else(|| panic!("no {ending} in {}: `make package`", dir.display()));
    assert!(files.is_empty(), "{files:?} as well");
    file
}

#[test]
#[ignore = "of what `make package` made: `make package-check`"]
fn what_was_packed_is_what_a_machine_needs() {
    let dir = Path::new(CHECKOUT).join("target/package");
    let sums = ["--check", "--strict", "SHA256SUMS"];
    done(Command::new("sha256sum").args(sums).current_dir(&dir));
    let manifest = Deb::of_the_manifest();

    let deb = only(&dir, ".deb");
    let of_it = |what: &str| done(Command::new("dpkg-deb").arg(what).arg(&deb));
    let files: BTreeMap<_, _> = of_it("--contents").lines().filter_map(listed).collect();
    check_files(&files, &manifest.conf_files);
    let fields = of_it("--field");
    let version = format!("Version: {}", env!("CARGO_PKG_VERSION"));
    for field in ["Package: bazaar", &version, "Depends: libc6"] {
        assert!(
            fields.lines().any(|line| line.starts_with(field)),
            "{fields}"
        );
    }
    assert!(fields.contains(", passwd"), "{fields}");
    // Nothing is changed: it says whether everything that it depends on is to be had.
    let simulated = ["--simulate", "install"];
    done(Command::new("apt-get").args(simulated).arg(&deb));

    let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let names = ["root", "control", "archive"];
    let [root, control, archive] = names.map(|name| place.path().join(name));
    for (what, to) in [("--extract", &root), ("--control", &control)] {
        done(Command::new("dpkg-deb").arg(what).arg(&deb).arg(to));
    }
    check_root(&root);
    let kept = fs::read_to_string(control.join("conffiles")).unwrap();
    let kept: BTreeSet<_> = kept.lines().map(str::to_owned).collect();
    assert_eq!(kept, manifest.conf_files);
    let script = fs::metadata(control.join("postinst")).unwrap();
    assert_eq!(script.permissions().mode() & 0o777, 0o755, "it is run");

    fs::create_dir(&archive).unwrap();
    let mut tar = Command::new("tar");
    tar.args(["--extract", "--file"]).arg(only(&dir, ".tar.gz"));
    done(tar.arg("--directory").arg(&archive));
    let mut below = fs::read_dir(&archive).unwrap();
    let below = below.next().expect("a directory of its own");
    let below = below.unwrap().path();
    runs(&below.join("bin/bazaar"));
    for file in [
        "LICENSE",
        "docs/OPERATING.md",
        "deploy/systemd/bazaar-catalog.service",
        "completions/bazaar.bash",
        "man/bazaar.1",
    ] {
        assert!(below.join(file).is_file(), "{file} is not in the archive");
    }
}

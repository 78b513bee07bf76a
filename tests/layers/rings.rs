//! Rings of modules in what is shipped: files that import each other, directly or by way of others.
//!
//! A module and those inside it are one room, in which everybody may know everybody above: `use
//! super::Thing` makes no ring. Tests belong to what they test.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};
use syn::{Item, ItemMod, ItemUse, UseTree};

use super::paths::is_for_tests;

/// From a crate's root; empty for the root itself.
type Module = Vec<String>;

/// Which modules a module imports.
type Imports = BTreeMap<Module, BTreeSet<Module>>;

/// A line for each ring in a crate of the project.
pub fn of_project(project: &Path) -> Vec<String> {
    let mut rings = Vec::new();
    for root in crate_roots(project) {
        let name = root
            .strip_prefix(project)
            .expect("it is inside")
            .display()
            .to_string();
        for ring in rings_of(&imports(&root)) {
            rings.push(format!("{name}: {}", shown(&ring)));
        }
    }
    rings
}

/// A line for each ring of a crate's layers: the modules at its root, each with all that is in it.
pub fn of_layers(root: &Path) -> Vec<String> {
    let mut layers = Imports::new();
    for (module, imported) in imports(root) {
        let Some(layer) = module.first() else {
            continue;
        };
        let others = imported.iter().filter_map(|module| module.first());
        let others = others.map(|other| vec![other.clone()]);
        layers
            .entry(vec![layer.clone()])
            .or_default()
            .extend(others);
    }
    rings_of(&layers).iter().map(|ring| shown(ring)).collect()
}

fn shown(ring: &[Module]) -> String {
    let modules: Vec<String> = ring.iter().map(|module| module.join("::")).collect();
    modules.join(", ")
}

/// The `src` directories of the workspace's crates.
fn crate_roots(project: &Path) -> Vec<PathBuf> {
    let mut roots = Vec::new();
    let mut dirs = vec![project.to_owned()];
    while let Some(dir) = dirs.pop() {
        if dir.join("Cargo.toml").exists() && dir.join("src").is_dir() {
            roots.push(dir.join("src"));
        }
        for entry in fs::read_dir(&dir).expect("it is readable") {
            let entry = entry.expect("it is readable");
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_source =
                !name.starts_with('.') && !["src", "target", "data", "tests"].contains(&&*name);
            if is_source && entry.file_type().expect("it has one").is_dir() {
                dirs.push(entry.path());
            }
        }
    }
    roots
}

fn imports(root: &Path) -> Imports {
    let mut sources = BTreeMap::new();
    collect(root, &mut Module::new(), &mut sources);
    let modules: BTreeSet<Module> = sources.keys().cloned().collect();
    let imports = sources.iter().map(|(module, file)| {
        let mut found = Finder {
            module,
            modules: &modules,
            imports: BTreeSet::new(),
        };
        found.visit_file(file);
        (module.clone(), found.imports)
    });
    imports.collect()
}

/// Parses the files under a directory.
fn collect(dir: &Path, at: &mut Module, sources: &mut BTreeMap<Module, syn::File>) {
    for entry in fs::read_dir(dir).expect("it is readable") {
        let path = entry.expect("it is readable").path();
        let stem = path
            .file_stem()
            .expect("it has a name")
            .to_string_lossy()
            .into_owned();
        if ["tests", "test"].contains(&&*stem) {
            continue;
        }
        if path.is_dir() {
            at.push(stem);
            collect(&path, at, sources);
            at.pop();
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("it is text");
            let file = syn::parse_file(&text)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let mut module = at.clone();
            if !["lib", "main", "mod"].contains(&&*stem) {
                module.push(stem);
            }
            sources.insert(module, file);
        }
    }
}

/// Collects what one module imports of its crate.
struct Finder<'a> {
    module: &'a Module,
    modules: &'a BTreeSet<Module>,
    imports: BTreeSet<Module>,
}

impl Finder<'_> {
    /// Takes down which module a path leads into, where it is one of this crate.
    fn note(&mut self, path: &[String]) {
        let mut segments = path.iter().map(String::as_str).peekable();
        let mut at = self.module.clone();
        match segments.peek() {
            Some(&"crate") => at.clear(),
            Some(&("self" | "super")) => {}
            Some(first)
                if self
                    .modules
                    .contains(&[at.as_slice(), &[(*first).to_owned()]].concat()) => {}
            _ => return,
        }
        for segment in segments {
            match segment {
                "crate" | "self" => {}
                "super" => {
                    at.pop();
                }
                name => {
                    at.push(name.to_owned());
                    if !self.modules.contains(&at) {
                        at.pop();
                        break;
                    }
                }
            }
        }
        self.imports.insert(at);
    }

    fn note_tree(&mut self, before: &mut Vec<String>, tree: &UseTree) {
        match tree {
            UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.note_tree(before, &path.tree);
                before.pop();
            }
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.note_tree(before, tree);
                }
            }
            UseTree::Name(name) => {
                self.note(&[before.as_slice(), &[name.ident.to_string()]].concat())
            }
            UseTree::Rename(name) => {
                self.note(&[before.as_slice(), &[name.ident.to_string()]].concat())
            }
            UseTree::Glob(_) => self.note(before),
        }
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_for_tests(item) {
            visit::visit_item(self, item);
        }
    }

    // A module in the same file sees `super` as this one; there are few but tests.
    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        visit::visit_item_mod(self, item);
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.note_tree(&mut Vec::new(), &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments: Vec<String> = path
            .segments
            .iter()
            .map(|segment| segment.ident.to_string())
            .collect();
        if segments.len() > 1 && ["crate", "self", "super"].contains(&&*segments[0]) {
            self.note(&segments);
        }
        visit::visit_path(self, path);
    }
}

/// The modules of each ring, by Tarjan's algorithm (SIAM Journal on Computing 1 (2), 1972).
fn rings_of(imports: &Imports) -> Vec<Vec<Module>> {
    let mut search = Search {
        imports,
        seen: BTreeMap::new(),
        open: Vec::new(),
        rings: Vec::new(),
    };
    for module in imports.keys() {
        if !search.seen.contains_key(module) {
            search.enter(module);
        }
    }
    search.rings
}

struct Search<'a> {
    imports: &'a Imports,
    /// In which order modules were found, and the first that each leads back to.
    seen: BTreeMap<&'a Module, (usize, usize)>,
    open: Vec<&'a Module>,
    rings: Vec<Vec<Module>>,
}

impl<'a> Search<'a> {
    fn enter(&mut self, module: &'a Module) -> usize {
        let number = self.seen.len();
        self.seen.insert(module, (number, number));
        self.open.push(module);
        let mut lowest = number;
        for other in self.imports.get(module).into_iter().flatten() {
            let one_room = other.starts_with(module) || module.starts_with(other);
            let Some((other, _)) = self.imports.get_key_value(other).filter(|_| !one_room) else {
                continue;
            };
            match self.seen.get(other) {
                None => lowest = lowest.min(self.enter(other)),
                Some(&(found, _)) if self.open.contains(&other) => lowest = lowest.min(found),
                Some(_) => {}
            }
        }
        self.seen.insert(module, (number, lowest));
        if lowest == number {
            let from = self.open.iter().position(|open| *open == module);
            let ring: Vec<Module> = self
                .open
                .drain(from.expect("it is open")..)
                .cloned()
                .collect();
            if ring.len() > 1 {
                self.rings.push(ring);
            }
        }
        lowest
    }
}

#[test]
fn a_ring_is_found_and_a_parent_is_none() {
    let module = |path: &str| path.split("::").map(str::to_owned).collect::<Module>();
    let imports = |edges: &[(&str, &[&str])]| -> Imports {
        edges
            .iter()
            .map(|(from, to)| (module(from), to.iter().map(|to| module(to)).collect()))
            .collect()
    };
    let ring = imports(&[("a", &["b"]), ("b", &["c"]), ("c", &["a"]), ("d", &["a"])]);
    assert_eq!(rings_of(&ring), [["a", "b", "c"].map(module).to_vec()]);
    let none = imports(&[("a", &["a::b", "c"]), ("a::b", &["a"]), ("c", &[])]);
    assert_eq!(rings_of(&none), Vec::<Vec<Module>>::new());
}

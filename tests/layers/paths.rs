//! Every path that the sources of a crate name, in imports as in what follows them; tests' own are left out.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};
use syn::{Item, ItemUse, UseTree};

/// The paths that the files under a directory name, each with a file that does.
pub fn of_crate(root: &Path) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("it is readable") {
            let file = entry.expect("it is readable").path();
            if file.file_stem().is_some_and(|stem| stem == "tests") {
                continue;
            }
            if file.is_dir() {
                directories.push(file);
                continue;
            }
            let source = fs::read_to_string(&file).expect("it is text");
            for path in of_source(&source) {
                found.insert(path, file.clone());
            }
        }
    }
    found
}

/// The paths that a source names.
fn of_source(source: &str) -> Vec<String> {
    let mut finder = Finder(Vec::new());
    finder.visit_file(&syn::parse_file(source).expect("it is Rust"));
    finder.0
}

struct Finder(Vec<String>);

impl Finder {
    fn note_tree(&mut self, before: &str, tree: &UseTree) {
        match tree {
            UseTree::Path(path) => self.note_tree(&format!("{before}{}::", path.ident), &path.tree),
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.note_tree(before, tree);
                }
            }
            UseTree::Name(name) => self.0.push(format!("{before}{}", name.ident)),
            UseTree::Rename(name) => self.0.push(format!("{before}{}", name.ident)),
            UseTree::Glob(_) => self.0.push(format!("{before}*")),
        }
    }
}

/// Whether it is compiled for tests alone.
pub fn is_for_tests(item: &Item) -> bool {
    let attributes = match item {
        Item::Mod(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        _ => return false,
    };
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute
                .meta
                .require_list()
                .is_ok_and(|list| list.tokens.to_string() == "test")
    })
}

impl<'ast> Visit<'ast> for Finder {
    fn visit_item(&mut self, item: &'ast Item) {
        if !is_for_tests(item) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        self.note_tree("", &item.tree);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments = path
            .segments
            .iter()
            .map(|segment| segment.ident.to_string());
        self.0.push(segments.collect::<Vec<_>>().join("::"));
        visit::visit_path(self, path);
    }

    // What is in there is not parsed.
    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        let tokens = called.tokens.to_string().replace(" :: ", "::");
        let words = tokens.split(|c: char| !(c.is_alphanumeric() || "_:".contains(c)));
        self.0
            .extend(words.filter(|word| word.contains("::")).map(str::to_owned));
        visit::visit_macro(self, called);
    }
}

#[test]
fn paths_are_found_in_groups_and_in_code() {
    let source = "use std::{fs, time::{Duration, Instant as Now}}; use domain::*; \
         fn f() { std::env::var(\"X\"); vec!(1, std::net::Ipv4Addr::LOCALHOST); } #[cfg(test)] mod tests { use std::thread; }";
    let mut found = of_source(source);
    found.sort();
    let of_imports = [
        "domain::*",
        "std::fs",
        "std::time::Duration",
        "std::time::Instant",
    ];
    let of_code = ["std::env::var", "std::net::Ipv4Addr::LOCALHOST"];
    let mut all = [&of_imports[..], &of_code[..]].concat();
    all.push("vec");
    all.sort_unstable();
    assert_eq!(found, all);
}

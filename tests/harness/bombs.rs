//! Components that are made to keep a compiler busy, or to fill its memory.

use std::fmt::Write as _;

/// Takes too much memory: loops within each other, over all of many locals.
pub fn nested_loops() -> Vec<u8> {
    component(&[loops_within_each_other(5_000, 500)])
}

/// Takes too much memory: many locals that live long.
pub fn many_locals() -> Vec<u8> {
    component(&[locals_read_late(40_000, 2_000)])
}

/// Takes too much memory: giant tables of branches.
pub fn branch_tables() -> Vec<u8> {
    component(&[tables_of_branches(60_000, 8)])
}

/// Blocks within each other, deeper than a compiler goes.
pub fn deep_nesting() -> Vec<u8> {
    let deep = format!("{}{}", "(block ".repeat(100_000), ")".repeat(100_000));
    component(&[deep])
}

/// Takes minutes of processor time, and little memory.
pub fn time_bomb() -> Vec<u8> {
    component(&vec![loops_within_each_other(1_000, 100); 200])
}

/// A record of two records of two records, and so on.
pub fn exponential_type() -> Vec<u8> {
    let mut text = "(component (type $t0 (record (field \"a\" u8) (field \"b\" u8)))".to_owned();
    for number in 1..64 {
        let inner = number - 1;
        write!(
            text,
            "(type $t{number} (record (field \"a\" $t{inner}) (field \"b\" $t{inner})))"
        )
        .unwrap();
    }
    text.push_str("(import \"f\" (func (param \"x\" $t63))))");
    wat::parse_str(text).unwrap()
}

/// A component whose core module has these functions, each of an `i32`.
fn component(functions: &[String]) -> Vec<u8> {
    let mut text = "(component (core module ".to_owned();
    for function in functions {
        write!(text, "(func (param $n i32) {function})").unwrap();
    }
    text.push_str("))");
    wat::parse_str(text).unwrap()
}

/// Loops within each other, in which all of many locals change: the compiler must think of each local in
/// each loop.
fn loops_within_each_other(locals: u32, loops: usize) -> String {
    let mut text = format!("(local {})", "i64 ".repeat(locals as usize));
    text.push_str(&"(loop ".repeat(loops));
    for local in 1..=locals {
        write!(
            text,
            "(local.set {local} (i64.add (local.get {local}) (i64.const 1)))"
        )
        .unwrap();
    }
    text.push_str(&"(br_if 0 (local.get $n)))".repeat(loops));
    text
}

/// Many locals that are read after many loops.
fn locals_read_late(locals: u32, loops: u32) -> String {
    let mut text = format!("(local {})", "i64 ".repeat(locals as usize));
    for number in 0..loops {
        let (from, to) = (number * 7 % locals + 1, number * 13 % locals + 1);
        write!(
            text,
            "(loop (local.set {to} (i64.add (local.get {from}) (i64.const 1)))\
             (br_if 0 (local.get $n)))"
        )
        .unwrap();
    }
    for local in 1..=locals {
        write!(text, "(drop (local.get {local}))").unwrap();
    }
    text
}

/// Tables of branches that go to two places.
fn tables_of_branches(targets: usize, tables: usize) -> String {
    let table = format!(
        "(block (br_table {} (local.get $n)))",
        "0 1 ".repeat(targets / 2)
    );
    format!("(block {})", table.repeat(tables))
}

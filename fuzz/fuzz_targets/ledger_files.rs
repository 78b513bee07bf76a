#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| inputs::database::check_ledger(bytes));

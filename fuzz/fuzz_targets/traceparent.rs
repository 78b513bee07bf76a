#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| inputs::traceparent::check(bytes));

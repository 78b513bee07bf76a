//! Values as the protocol has them, in binary.

use super::wire::{BYTEA, INT8, Oid, TEXT, Value};

pub fn int8(value: i64) -> Value {
    Some(value.to_be_bytes().to_vec())
}

pub fn int4(value: i32) -> Value {
    Some(value.to_be_bytes().to_vec())
}

pub fn text(value: impl AsRef<str>) -> Value {
    Some(value.as_ref().as_bytes().to_vec())
}

pub fn bytes(value: &[u8]) -> Value {
    Some(value.to_vec())
}

pub fn boolean(value: bool) -> Value {
    Some(vec![u8::from(value)])
}

pub fn int8s(values: &[i64]) -> Value {
    let mut array = Vec::new();
    let (dimensions, length) = (i32::from(!values.is_empty()), values.len() as i32);
    array.extend(dimensions.to_be_bytes());
    array.extend(0_i32.to_be_bytes()); // none is null
    array.extend(INT8.to_be_bytes());
    if dimensions > 0 {
        array.extend(length.to_be_bytes());
        array.extend(1_i32.to_be_bytes()); // where it begins
        for value in values {
            array.extend(8_i32.to_be_bytes());
            array.extend(value.to_be_bytes());
        }
    }
    Some(array)
}

/// What a statement was given, by its places from 1 on.
pub struct Given<'a>(pub &'a [Value]);

impl Given<'_> {
    fn value(&self, place: usize) -> &[u8] {
        self.0[place - 1].as_deref().expect("it is not null")
    }

    pub fn int8(&self, place: usize) -> i64 {
        read_int8(self.value(place))
    }

    pub fn text(&self, place: usize) -> String {
        read_text(self.value(place))
    }

    pub fn bytes(&self, place: usize) -> Vec<u8> {
        self.value(place).to_vec()
    }

    fn array(&self, place: usize, of: Oid) -> Vec<Value> {
        let mut array = self.value(place);
        let mut int4 = || {
            let (bytes, rest) = array.split_at(4);
            array = rest;
            i32::from_be_bytes(bytes.try_into().expect("four"))
        };
        let (dimensions, _has_null, oid) = (int4(), int4(), int4());
        assert_eq!(oid as Oid, of, "of the type that is wanted");
        if dimensions == 0 {
            return Vec::new();
        }
        let (length, _first) = (int4(), int4());
        let mut values = Vec::new();
        for _ in 0..length {
            let (bytes, rest) = array.split_at(4);
            array = rest;
            let length = i32::from_be_bytes(bytes.try_into().expect("four"));
            values.push(usize::try_from(length).ok().map(|length| {
                let (value, rest) = array.split_at(length);
                array = rest;
                value.to_vec()
            }));
        }
        values
    }

    pub fn int8s(&self, place: usize) -> Vec<i64> {
        let values = self.array(place, INT8).into_iter().flatten();
        values.map(|value| read_int8(&value)).collect()
    }

    pub fn texts(&self, place: usize) -> Vec<String> {
        let values = self.array(place, TEXT).into_iter().flatten();
        values.map(|value| read_text(&value)).collect()
    }

    /// With nulls.
    pub fn options(&self, place: usize) -> Vec<Value> {
        self.array(place, TEXT)
    }

    pub fn byteas(&self, place: usize) -> Vec<Vec<u8>> {
        self.array(place, BYTEA).into_iter().flatten().collect()
    }
}

fn read_int8(value: &[u8]) -> i64 {
    i64::from_be_bytes(value.try_into().expect("eight bytes"))
}

fn read_text(value: &[u8]) -> String {
    String::from_utf8(value.to_vec()).expect("UTF-8")
}

-- What the catalog keeps, as far as a trade touches it.
CREATE TABLE stock (
    id       integer PRIMARY KEY,
    name     text NOT NULL UNIQUE,
    price    bigint NOT NULL CHECK (price >= 0),
    quantity bigint NOT NULL CHECK (quantity >= 0),
    volume   bigint NOT NULL CHECK (volume >= 0),
    version  bigint NOT NULL
);
CREATE TABLE journal (
    number   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    key      text NOT NULL UNIQUE,
    name     text NOT NULL,
    side     text NOT NULL CHECK (side IN ('buy', 'sell')),
    quantity bigint NOT NULL CHECK (quantity > 0),
    price    bigint NOT NULL
);
INSERT INTO stock
SELECT n, 'stock-' || n, 24063, 1000000000, 0, 1 FROM generate_series(1, 8) AS n;

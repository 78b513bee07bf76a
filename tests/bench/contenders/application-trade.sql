WITH traded AS (
    UPDATE stock SET quantity = quantity + $2::bigint, volume = volume + 1, version = version + 1
    WHERE name = $1::text AND quantity + $2::bigint >= 0
    RETURNING name, price
)
INSERT INTO journal (key, name, side, quantity, price)
SELECT gen_random_uuid()::text, name, CASE WHEN $2::bigint < 0 THEN 'buy' ELSE 'sell' END, abs($2::bigint), price
FROM traded
RETURNING number

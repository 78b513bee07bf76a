\set stock random(1, 8)
\set change 2 * random(0, 1) - 1
WITH traded AS (
    UPDATE stock SET quantity = quantity + :change, volume = volume + 1, version = version + 1
    WHERE id = :stock AND quantity + :change >= 0
    RETURNING name, price
)
INSERT INTO journal (key, name, side, quantity, price)
SELECT gen_random_uuid()::text, name, CASE WHEN :change < 0 THEN 'buy' ELSE 'sell' END, 1, price FROM traded
RETURNING number;

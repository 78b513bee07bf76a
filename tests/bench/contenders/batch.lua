-- For wrk: places so many orders of one share at a time at Bazaar, selling and buying in turn, over eight stocks.
local stocks = { "amazon", "apple", "google", "intel", "meta", "nike", "nvidia", "tesla" }
local sides = { "sell", "buy" }
local count, batch

function init(arguments)
    count = tonumber(arguments[1])
    local orders = {}
    for order = 0, count - 1 do
        local stock = stocks[math.floor(order / 2) % #stocks + 1]
        orders[#orders + 1] = string.format(
            '{"name":"%s","type":"%s","quantity":1}', stock, sides[order % 2 + 1])
    end
    local body = "[" .. table.concat(orders, ",") .. "]"
    batch = "POST /orders HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n" ..
        "content-length: " .. #body .. "\r\n\r\n" .. body
end

request = function()
    return batch
end

-- The status says nothing of the single orders.
response = function(status, headers, body)
    local _, placed = body:gsub('"transaction_number"', "")
    if placed ~= count then
        io.stderr:write(string.format(
            "%d of %d orders were placed: %d %s\n", placed, count, status, body:sub(1, 500)))
        os.exit(1)
    end
end

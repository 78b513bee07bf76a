-- For wrk: places orders of one share at Bazaar, buying and selling in turn, over eight stocks.
local stocks = { "amazon", "apple", "google", "intel", "meta", "nike", "nvidia", "tesla" }
local sides = { "buy", "sell" }
local orders = {}
for side = 1, #sides do
    for stock = 1, #stocks do
        local body = string.format(
            '{"name":"%s","type":"%s","quantity":1}', stocks[stock], sides[side])
        orders[#orders + 1] =
            "POST /orders HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n" ..
            "content-length: " .. #body .. "\r\n\r\n" .. body
    end
end

local next = 0

request = function()
    next = next % #orders + 1
    return orders[next]
end

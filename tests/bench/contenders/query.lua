-- For wrk: asks for random orders of a ledger of so many.
local orders

function init(arguments)
    orders = tonumber(arguments[1])
    math.randomseed(os.time())
end

request = function()
    local number = math.random(0, orders - 1)
    return string.format("GET /orders/%d HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n", number)
end

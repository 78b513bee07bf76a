-- For wrk: looks up the stocks that are traded, one after the other, with a pause of so many milliseconds before each.
local stocks = { "amazon", "apple", "google", "intel", "meta", "nike", "nvidia", "tesla" }
local pause
local next = 0

function init(arguments)
    pause = tonumber(arguments[1])
end

function delay()
    return pause
end

request = function()
    next = next % #stocks + 1
    return "GET /stocks/" .. stocks[next] .. " HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"
end

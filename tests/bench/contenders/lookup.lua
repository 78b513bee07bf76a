-- For wrk: looks up a hot stock in so many of a thousand cases, else one of the others, each in
-- its turn: one that was not looked up for as long as possible.
local hot = { "amazon", "apple", "google", "intel", "meta", "nike", "nvidia", "tesla" }
local share, others, next

function init(arguments)
    share, others = tonumber(arguments[1]), tonumber(arguments[2])
    math.randomseed(os.time())
    next = math.random(others)
end

request = function()
    local name
    if math.random(1000) <= share then
        name = hot[math.random(#hot)]
    else
        next = next % others + 1
        name = "stock-" .. next
    end
    return "GET /stocks/" .. name .. " HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"
end

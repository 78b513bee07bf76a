-- For wrk: puts an order under a key of its own into etcd, over its JSON gateway.
local alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

-- For a text whose length is a multiple of 3.
local function base64(text)
    local encoded = {}
    for at = 1, #text, 3 do
        local a, b, c = text:byte(at, at + 2)
        local bits = a * 65536 + b * 256 + c
        for shift = 3, 0, -1 do
            local digit = math.floor(bits / 64 ^ shift) % 64
            encoded[#encoded + 1] = alphabet:sub(digit + 1, digit + 1)
        end
    end
    return table.concat(encoded)
end

-- What a client orders at Bazaar, 45 bytes with the blank behind it.
local value = base64('{"name":"nvidia","type":"sell","quantity":1} ')
local run, number

-- Each run has keys of its own.
function init(arguments)
    run, number = tonumber(arguments[1]), 0
end

request = function()
    number = number + 1
    local key = base64(string.format("order-%06d-%011d", run, number))
    local body = '{"key":"' .. key .. '","value":"' .. value .. '"}'
    return "POST /v3/kv/put HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n" ..
        "content-length: " .. #body .. "\r\n\r\n" .. body
end

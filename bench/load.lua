-- Sends the requests of a file (each as it goes over the wire, a NUL between two), one after the other, and again.
-- In each of them "@@@@@@@@@" becomes another number of nine digits. At the end it prints what came of it, as JSON.
local requests, number, sent = {}, 0, 0

function init(arguments)
   local file = assert(io.open(arguments[1], "rb"))
   for request in file:read("*a"):gmatch("[^%z]+") do
      requests[#requests + 1] = request
   end
   file:close()
   is_numbered = requests[1]:find("@@@@@@@@@", 1, true) ~= nil
end

function numbered()
   number = number + 1
   return string.format("%09d", number)
end

function request()
   sent = sent + 1
   local text = requests[(sent - 1) % #requests + 1]
   return is_numbered and text:gsub("@@@@@@@@@", numbered) or text
end

function done(summary, latency)
   local errors = summary.errors
   io.write(string.format(
      '\n{"answers": %d, "seconds": %.6f, "refused": %d, "lost": %d, "p50": %.4f, "p95": %.4f, "p99": %.4f}\n',
      summary.requests, summary.duration / 1e6, errors.status,
      errors.connect + errors.read + errors.write + errors.timeout,
      latency:percentile(50) / 1e3, latency:percentile(95) / 1e3, latency:percentile(99) / 1e3))
end

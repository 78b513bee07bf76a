// Gives every request one answer, the 57 bytes that the caches are compared on, and asks for nothing of the request.
const body = '{"data":{"name":"nvidia","price":240.63,"quantity":1000}}';
const init = { headers: { "content-type": "application/json" } };

export default {
  fetch() {
    return new Response(body, init);
  },
};

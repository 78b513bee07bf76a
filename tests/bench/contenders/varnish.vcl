# Varnish as it comes; objects are kept in memory. {…} is filled in by `bench`.
vcl 4.1;

backend origin {
    .host = "{origin_host}";
    .port = "{origin_port}";
}

sub vcl_backend_response {
    set beresp.ttl = 1h;
}

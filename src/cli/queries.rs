//! The ready-made queries of `queries/`, built into the binary: one line each, in the order in which the demo registers
//! them.

/// Name (also the view's) and text.
pub static QUERIES: &[(&str, &str)] = &[
    ("access_5xx_bursts", include_str!("../../queries/access_5xx_bursts.sql")),
    ("access_bots", include_str!("../../queries/access_bots.sql")),
    ("access_bots_by_family", include_str!("../../queries/access_bots_by_family.sql")),
    ("access_broken_links", include_str!("../../queries/access_broken_links.sql")),
    ("access_endpoints", include_str!("../../queries/access_endpoints.sql")),
    ("access_error_rate_by_path", include_str!("../../queries/access_error_rate_by_path.sql")),
    ("access_failed_logins", include_str!("../../queries/access_failed_logins.sql")),
    ("access_heavy_paths", include_str!("../../queries/access_heavy_paths.sql")),
    ("access_methods_protocols", include_str!("../../queries/access_methods_protocols.sql")),
    ("access_networks", include_str!("../../queries/access_networks.sql")),
    ("access_referring_sites", include_str!("../../queries/access_referring_sites.sql")),
    ("access_requests_per_minute", include_str!("../../queries/access_requests_per_minute.sql")),
    ("access_response_sizes", include_str!("../../queries/access_response_sizes.sql")),
    ("access_scanners", include_str!("../../queries/access_scanners.sql")),
    ("access_size_histogram", include_str!("../../queries/access_size_histogram.sql")),
    ("access_status_mix", include_str!("../../queries/access_status_mix.sql")),
    ("access_top_clients", include_str!("../../queries/access_top_clients.sql")),
    ("access_top_urls", include_str!("../../queries/access_top_urls.sql")),
    ("access_traffic_by_hour", include_str!("../../queries/access_traffic_by_hour.sql")),
    ("access_unique_visitors", include_str!("../../queries/access_unique_visitors.sql")),
    ("error_beside_5xx", include_str!("../../queries/error_beside_5xx.sql")),
    ("error_clients", include_str!("../../queries/error_clients.sql")),
    ("error_codes", include_str!("../../queries/error_codes.sql")),
    ("error_levels_per_minute", include_str!("../../queries/error_levels_per_minute.sql")),
    ("error_messages", include_str!("../../queries/error_messages.sql")),
];

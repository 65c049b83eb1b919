-- The price table that Tollgate ships with: public list prices of autumn 2026, in US dollars per million tokens.
--
-- A row applies to a provider by its name in the configuration: whoever names the provider differently, or has other
-- terms, inserts rows of his own. One that holds already is left alone. Models are left out whose bill depends on what a
-- call does not report: cache writes, searches, audio. Models with a dearer tier for long prompts are priced up to it.
-- A later change of price is a later migration that ends the old row and inserts a new one.

INSERT INTO prices (provider, model, valid_from, input_usd_per_mtok, cached_input_usd_per_mtok, output_usd_per_mtok,
                    max_input_tokens, source)
SELECT provider, model, '2025-01-01T00:00:00Z', input, cached, output, longest, source
FROM (VALUES
    ('openai', 'gpt-4.1', 2, 0.5::numeric, 8, NULL::bigint, 'list price, autumn 2026'),
    ('openai', 'gpt-4.1-2025-04-14', 2, 0.5, 8, NULL, 'list price, autumn 2026'),
    ('openai', 'gpt-4.1-mini', 0.4, 0.1, 1.6, NULL, 'list price, autumn 2026'),
    ('openai', 'gpt-4.1-mini-2025-04-14', 0.4, 0.1, 1.6, NULL, 'list price, autumn 2026'),
    ('openai', 'gpt-4.1-nano', 0.1, 0.025, 0.4, NULL, 'list price, autumn 2026'),
    ('openai', 'gpt-4.1-nano-2025-04-14', 0.1, 0.025, 0.4, NULL, 'list price, autumn 2026'),
    ('openai', 'gpt-4o', 2.5, 1.25, 10, NULL, 'list price, autumn 2026'),
    ('openai', 'gpt-4o-2024-05-13', 5, NULL, 15, NULL, 'list price, autumn 2026'),
    ('openai', 'gpt-4o-2024-08-06', 2.5, 1.25, 10, NULL, 'list price, autumn 2026'),
    ('openai', 'gpt-4o-2024-11-20', 2.5, 1.25, 10, NULL, 'list price, autumn 2026'),
    ('openai', 'gpt-4o-mini', 0.15, 0.075, 0.6, NULL, 'list price, autumn 2026'),
    ('openai', 'gpt-4o-mini-2024-07-18', 0.15, 0.075, 0.6, NULL, 'list price, autumn 2026'),
    ('openai', 'gpt-5', 1.25, 0.125, 10, NULL, 'list price, autumn 2026'),
    ('openai', 'gpt-5-2025-08-07', 1.25, 0.125, 10, NULL, 'list price, autumn 2026'),
    ('openai', 'gpt-5-chat', 1.25, 0.125, 10, NULL, 'list price, autumn 2026'),
    ('openai', 'gpt-5-chat-latest', 1.25, 0.125, 10, NULL, 'list price, autumn 2026'),
    ('openai', 'gpt-5-mini', 0.25, 0.025, 2, NULL, 'list price, autumn 2026'),
    ('openai', 'gpt-5-mini-2025-08-07', 0.25, 0.025, 2, NULL, 'list price, autumn 2026'),
    ('openai', 'gpt-5-nano', 0.05, 0.005, 0.4, NULL, 'list price, autumn 2026'),
    ('openai', 'gpt-5-nano-2025-08-07', 0.05, 0.005, 0.4, NULL, 'list price, autumn 2026'),
    ('openai', 'gpt-5.1', 1.25, 0.125, 10, NULL, 'list price, autumn 2026'),
    ('openai', 'gpt-5.1-2025-11-13', 1.25, 0.125, 10, NULL, 'list price, autumn 2026'),
    ('openai', 'gpt-5.1-chat-latest', 1.25, 0.125, 10, NULL, 'list price, autumn 2026'),
    ('openai', 'gpt-5.2', 1.75, 0.175, 14, NULL, 'list price, autumn 2026'),
    ('openai', 'gpt-5.2-2025-12-11', 1.75, 0.175, 14, NULL, 'list price, autumn 2026'),
    ('openai', 'gpt-5.2-chat-latest', 1.75, 0.175, 14, NULL, 'list price, autumn 2026'),
    ('openai', 'gpt-5.3-chat-latest', 1.75, 0.175, 14, NULL, 'list price, autumn 2026'),
    ('openai', 'gpt-5.4', 2.5, 0.25, 15, 272000, 'list price, autumn 2026'),
    ('openai', 'gpt-5.4-2026-03-05', 2.5, 0.25, 15, 272000, 'list price, autumn 2026'),
    ('openai', 'gpt-5.4-mini', 0.75, 0.075, 4.5, NULL, 'list price, autumn 2026'),
    ('openai', 'gpt-5.4-mini-2026-03-17', 0.75, 0.075, 4.5, NULL, 'list price, autumn 2026'),
    ('openai', 'gpt-5.4-nano', 0.2, 0.02, 1.25, NULL, 'list price, autumn 2026'),
    ('openai', 'gpt-5.4-nano-2026-03-17', 0.2, 0.02, 1.25, NULL, 'list price, autumn 2026'),
    ('openai', 'gpt-5.5', 5, 0.5, 30, 272000, 'list price, autumn 2026'),
    ('openai', 'gpt-5.5-2026-04-23', 5, 0.5, 30, 272000, 'list price, autumn 2026'),
    ('openai', 'gpt-5.5-cyber', 12.5, 1.25, 75, NULL, 'list price, autumn 2026'),
    ('openai', 'gpt-5.5-cyber-preview', 12.5, 1.25, 75, NULL, 'list price, autumn 2026'),
    ('openai', 'o1', 15, 7.5, 60, NULL, 'list price, autumn 2026'),
    ('openai', 'o1-2024-12-17', 15, 7.5, 60, NULL, 'list price, autumn 2026'),
    ('openai', 'o3', 2, 0.5, 8, NULL, 'list price, autumn 2026'),
    ('openai', 'o3-2025-04-16', 2, 0.5, 8, NULL, 'list price, autumn 2026'),
    ('openai', 'o3-mini', 1.1, 0.55, 4.4, NULL, 'list price, autumn 2026'),
    ('openai', 'o3-mini-2025-01-31', 1.1, 0.55, 4.4, NULL, 'list price, autumn 2026'),
    ('openai', 'o4-mini', 1.1, 0.275, 4.4, NULL, 'list price, autumn 2026'),
    ('openai', 'o4-mini-2025-04-16', 1.1, 0.275, 4.4, NULL, 'list price, autumn 2026'),
    ('simulator', 'gpt-4o', 2.5, 1.25, 10, NULL, 'simulator'),
    ('simulator', 'gpt-4o-mini', 0.15, 0.075, 0.6, NULL, 'simulator'),
    ('simulator', 'sim-large', 2.5, 1.25, 10, NULL, 'simulator'),
    ('simulator', 'sim-mini', 0.15, 0.075, 0.6, NULL, 'simulator')
) AS shipped (provider, model, input, cached, output, longest, source)
WHERE NOT EXISTS (
    SELECT FROM prices own WHERE own.provider = shipped.provider AND own.model = shipped.model
);

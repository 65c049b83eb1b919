-- Notes the shares of budgets that are spent and were not noted in this period.
INSERT INTO limit_notices (limit_id, period, share, spent_usd, amount_usd, webhook)
SELECT l.limit_id, p.began, share, s.spent, l.amount, l.webhook
FROM limits l
CROSS JOIN LATERAL budget_period(l, now()) AS p
CROSS JOIN LATERAL (SELECT budget_spent(l, p.began) AS spent) AS s
CROSS JOIN LATERAL unnest(l.notify_at) AS share
WHERE NOT l.removed AND l.webhook IS NOT NULL AND l.measure = 'usd' AND s.spent >= share * l.amount
ON CONFLICT (limit_id, period, share) DO NOTHING
